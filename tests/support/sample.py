"""Runs a block of Python from a page as it is printed, `await` at its top level included: `python -m tests.support.sample FILE [TEXT]`.

With TEXT the block is cancelled once it has printed that, as Ctrl-C would; without, it must come to its end by itself.
"""

from __future__ import annotations

import ast
import asyncio
import io
import sys
from pathlib import Path
from typing import Any


class Watch(io.TextIOBase):
    """Passes on what is printed and tells when the awaited text was among it."""

    def __init__(self, out: Any, text: str | None, seen: asyncio.Event) -> None:
        self.out, self.text, self.seen, self.all = out, text, seen, ""

    def write(self, piece: str) -> int:
        self.all += piece
        if self.text is not None and self.text in self.all:
            self.seen.set()
        return int(self.out.write(piece))


async def run(path: Path, text: str | None) -> None:
    code = compile(path.read_text(encoding="utf-8"), str(path), "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    seen = asyncio.Event()
    sys.stdout = Watch(sys.stdout, text, seen)
    result = eval(code, {"__name__": "__main__"})
    if not asyncio.iscoroutine(result):
        return
    block = asyncio.ensure_future(result)
    watch = asyncio.ensure_future(seen.wait())
    await asyncio.wait([block, watch], return_when=asyncio.FIRST_COMPLETED)
    watch.cancel()
    if not block.done():
        block.cancel()
    try:
        await block
    except asyncio.CancelledError:
        if not seen.is_set():
            raise
    if text is not None and not seen.is_set():
        raise SystemExit(f"the sample ended and never printed {text!r}")


if __name__ == "__main__":
    asyncio.run(run(Path(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else None))
