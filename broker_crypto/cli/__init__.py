"""The command `broker-crypto`. One file per family of commands, loaded when it is used; needs the extra `cli`."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit code: 0 done, 1 the answer is no, 2 usage, 3 broker or store out of reach."""
    missing = [name for name in ("click", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        sys.stderr.write(f"broker-crypto: {' and '.join(missing)} not installed; pip install 'broker-crypto[cli]'\n")
        return 2
    from broker_crypto.cli.app import run

    return run(sys.argv[1:] if arguments is None else arguments)
