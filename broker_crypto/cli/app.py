"""The families of commands, and what becomes of an error: one sentence with place and cure, and an exit code."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
from collections.abc import Sequence
from typing import Final, cast

import click

from broker_crypto.cli import output
from broker_crypto.errors import BrokerCryptoError, BrokerUnavailable, PolicyError, StateLocked, StoreUnavailable, UsageError

FAMILIES: Final = ("demo", "init", "identity", "trust", "policy", "group", "inspect")  # each is `command` in its own file
DONE, NO, USAGE, OUT_OF_REACH = 0, 1, 2, 3
INTERRUPTED = 130


class Families(click.Group):
    """Finds a family's file when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name in FAMILIES if importlib.util.find_spec(f"broker_crypto.cli.{name}") is not None]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self.list_commands(ctx):
            return None
        return cast(click.Command, importlib.import_module(f"broker_crypto.cli.{cmd_name}").command)


@click.command(cls=Families, context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True)
@click.version_option(package_name="broker-crypto", prog_name="broker-crypto")
def application() -> None:
    """End-to-end encryption for Kafka topics and NATS subjects.

    \b
    Start here:
      broker-crypto init          a small CA, two identities, a policy that works at once
      broker-crypto policy check  what is wrong with a policy file
    """


def run(arguments: Sequence[str]) -> int:
    """Run one command and give its exit code."""
    try:
        code = application.main(list(arguments), prog_name="broker-crypto", standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        sys.stderr.write(f"{error.format_message()}\n")
        return USAGE
    except click.ClickException as error:
        return _usage(error, arguments)
    except (click.Abort, KeyboardInterrupt):
        sys.stderr.write("stopped\n")
        return INTERRUPTED
    except BrokerCryptoError as error:
        output.fail(error, as_json="--json" in arguments)
        return exit_code(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return NO
    except OSError as error:
        output.fail(UsageError(error.strerror or "the system refuses", path=error.filename), as_json="--json" in arguments)
        return USAGE
    return code if isinstance(code, int) else DONE


def exit_code(error: BrokerCryptoError) -> int:
    """The exit code for an error that ended a command."""
    if isinstance(error, StoreUnavailable | BrokerUnavailable | StateLocked):
        return OUT_OF_REACH
    return USAGE if isinstance(error, UsageError | PolicyError) else NO


def _usage(error: click.ClickException, arguments: Sequence[str]) -> int:
    where = error.ctx.command_path if isinstance(error, click.UsageError) and error.ctx else "broker-crypto"
    wrong = UsageError(error.format_message().rstrip("."))
    wrong.hint = f"{where} --help"
    output.fail(wrong, as_json="--json" in arguments)
    return USAGE
