"""Where the published test vectors of other people lie: `$BROKER_CRYPTO_VECTORS`, else `../shared/vectors` beside the checkout.

They are not ours to ship. Where they are missing the test that needs them is left out and says so; with `CI=true`, or
with the folder there and only a file missing, it fails.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {
    "mls": "https://github.com/mlswg/mls-implementations/tree/main/test-vectors",
    "noise": "https://github.com/haskell-cryptography/cacophony and the Noise wiki's list of vectors",
    "signal": "transcripts of libsignal",
}


def folder() -> Path:
    """The folder that holds mls/, noise/ and signal/; it need not exist."""
    return Path(os.environ.get("BROKER_CRYPTO_VECTORS") or ROOT.parent / "shared" / "vectors")


def path(name: str) -> Path:
    """The file `name`, such as "mls/tree-math.json" ("tree-math" is short for it); skips or fails where it is missing."""
    if "/" not in name:
        name = f"mls/{name}"
    if not name.endswith(".json"):
        name += ".json"
    file = folder() / name
    if file.is_file():
        return file
    said = f"test vectors {name} are not in {folder()}; they come from {SOURCES[name.split('/')[0]]}"
    if os.environ.get("CI") == "true" or folder().is_dir():
        pytest.fail(said, pytrace=False)
    pytest.skip(said, allow_module_level=True)


def load(name: str) -> Any:
    """The parsed JSON of `path(name)`."""
    return json.loads(path(name).read_bytes())
