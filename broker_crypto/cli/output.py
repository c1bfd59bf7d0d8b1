"""What commands print: for people, or one JSON object. Errors go to stderr, or are that object."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import click
from rich.console import Console
from rich.table import Table

from broker_crypto.errors import BrokerCryptoError, UsageError

Command: TypeAlias = Callable[..., None]
_PLACE = ("file", "line", "column")


class Output:
    """Where a command says what it found: `say` and `table` for people, `result` once for machines."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self._console = Console(highlight=False, soft_wrap=True, emoji=False, markup=False)

    def say(self, *lines: str) -> None:
        """Lines for people."""
        if not self.as_json:
            for line in lines:
                self._console.print(line)

    def table(self, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
        """A table for people."""
        if self.as_json:
            return
        table = Table(box=None, pad_edge=False, show_edge=False, show_header=any(columns), header_style="bold")
        for column in columns:
            table.add_column(column, overflow="fold")
        for row in rows:
            table.add_row(*map(str, row))
        self._console.print(table)

    @contextmanager
    def waiting(self, what: str) -> Iterator[None]:
        """A mark that turns while the block runs, on a terminal only."""
        if self.as_json or not self._console.is_terminal:
            yield
            return
        with self._console.status(what):
            yield

    def confirmed(self, yes: bool) -> bool:
        """Whether a person says that it is to be done; `yes` says it for them. UsageError where nobody can be asked."""
        if yes:
            return True
        if self.as_json:
            raise UsageError("nobody is asked with --json: add --yes")
        if click.confirm("go on?", err=True):
            return True
        self.say("nothing was changed")
        return False

    def result(self, value: Mapping[str, Any]) -> None:
        """The object for machines."""
        if self.as_json:
            click.echo(json.dumps(value, indent=2, default=_plain, ensure_ascii=False))


def machine_readable(command: Command) -> Command:
    """Adds --json; the command gets an Output as its first argument."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
    @functools.wraps(command)
    def run(*args: Any, as_json: bool, **options: Any) -> None:
        command(Output(as_json), *args, **options)

    return run


def policy_option(command: Command) -> Command:
    """Adds --policy FILE."""
    return click.option(
        "--policy",
        "-p",
        "policy_file",
        type=click.Path(path_type=Path),
        default=Path("policy.yaml"),
        show_default=True,
        envvar="BROKER_CRYPTO_POLICY",
        help="The policy file.",
    )(command)


def no(code: int = 1) -> None:
    """End the command: the answer is no."""
    click.get_current_context().exit(code)


def sentence(error: BrokerCryptoError) -> str:
    """An error as one sentence: place, what, the nearest valid name, details, cure."""
    fields = {name: value for name, value in error.fields.items() if value is not None}
    place = ":".join(str(fields.pop(name)) for name in _PLACE if name in fields)
    nearest = fields.pop("nearest", None)
    what = error.what or (error.__doc__ or "").split("\n")[0].rstrip(".")
    details = ", ".join(f"{name} {value}" for name, value in fields.items() if str(value) not in what)
    meant = f"; did you mean `{nearest}`?" if nearest else ""
    hint = f"; try: {error.hint}" if error.hint and not place else ""
    return f"{place}{': ' if place else ''}{what}{f' ({details})' if details else ''}{meant}{hint}"


def fail(error: BrokerCryptoError, *, as_json: bool) -> None:
    """Print an error that ended a command."""
    if as_json:
        click.echo(json.dumps({"error": as_object(error)}, indent=2, default=_plain, ensure_ascii=False))
    else:
        sys.stderr.write(f"broker-crypto: {sentence(error)}\n")


def as_object(error: BrokerCryptoError) -> dict[str, Any]:
    """An error for machines."""
    fields = {name: value for name, value in error.fields.items() if value is not None}
    return {"code": error.code, "what": error.what, **fields, "hint": error.hint}


def day(time_ms: int) -> str:
    """A time as people read it, UTC."""
    return datetime.fromtimestamp(time_ms // 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def _plain(value: object) -> object:
    return value.hex() if isinstance(value, bytes) else str(value)
