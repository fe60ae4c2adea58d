"""The entry of the command line: which commands there are, and what becomes of their errors.

It loads click and nothing else that takes time.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from typing import TYPE_CHECKING, NoReturn

import click

from edgec import __version__
from edgec.cli.lazy import LazyGroup
from edgec.cli.output import colour, print_error
from edgec.cli.settings import Settings
from edgec.errors import EdgecError, UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

_SECTIONS = {
    "Build": {
        "build": "Build a recipe's model libraries.",
        "plan": "Show what a build would do, without doing it.",
        "why": "Tell which input makes a stage run again.",
    },
    "Use": {
        "run": "Generate text with a built model.",
        "bench": "Measure a built model's speed and memory.",
        "verify": "Repeat the checks of a built model.",
        "package": "Make files for an Android or iOS app, or a page for browsers, from built models.",
        "inspect": "Show what is in a model, an artifact or a library.",
    },
    "Look up": {
        "recipes": "List the recipes that come with edgec.",
        "targets": "List the devices to build for.",
        "schema": "Print the JSON Schema of recipes or of targets.",
        "doctor": "Check that everything needed is installed and works.",
        "cache": "Look at the stage store, and clean it.",
    },
}
_INTERRUPTED = 130
_CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}


@click.group(
    cls=LazyGroup,
    sections=_SECTIONS,
    package="edgec.cli.commands",
    context_settings=_CONTEXT,
    invoke_without_command=True,
    epilog="\b\nExample:\n  edgec build tinypy && edgec run tinypy 'def add(a, b):'",
)
@click.version_option(__version__, package_name="edgec", message="edgec %(version)s")
@click.option("-q", "--quiet", is_flag=True, help="Print no progress, only results and errors.")
@click.option("-v", "--verbose", is_flag=True, help="Print the traceback of errors too.")
@click.pass_context
def cli(context: click.Context, *, quiet: bool, verbose: bool) -> None:
    """One recipe to deployable model libraries for every edge device.

    Results go to stdout, progress to stderr. Exit codes: 1 build failed, 2 usage, 3 unsupported
    model, 4 toolchain missing, 5 verification or budget failed, 6 cache unusable.
    """
    settings = context.ensure_object(Settings)
    settings.quiet, settings.verbose = quiet, verbose
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def main() -> NoReturn:
    """Run the command that this process was started with, and end the process."""
    sys.exit(run(sys.argv[1:]))


def run(args: Sequence[str]) -> int:
    """Run one command.

    Args:
        args: the words after the program's name.

    Returns:
        The exit code. Everything has been printed.
    """
    settings = Settings()
    try:
        code = cli.main(
            list(args), prog_name="edgec", standalone_mode=False, obj=settings, color=colour()
        )
        sys.stdout.flush()
    except EdgecError as error:
        return _report(error, settings)
    except click.ClickException as error:
        # A wrong word is found before the option for JSON takes effect.
        settings.as_json = settings.as_json or "--json" in args
        return _report(_usage_error(error), settings)
    except click.Abort:
        click.echo("interrupted", err=True)
        return _INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has seen enough. What is still buffered must not fail at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:  # noqa: BLE001 - the last place that can say something about it
        traceback.print_exc()
        what = f"{type(error).__name__}: {error}"
        print_error(f"this is a bug in edgec {__version__}, please report it; {what}")
        if settings.as_json:
            _print_json({"kind": "bug", "what": what, "where": "", "remedy": ""}, 1)
        return 1
    return code if isinstance(code, int) else 0


def _usage_error(error: click.ClickException) -> EdgecError:
    context = error.ctx if isinstance(error, click.UsageError) else None
    what = error.format_message().rstrip(".")
    if context is None:
        return UsageError(what)
    command = context.command_path
    return UsageError(what[:1].lower() + what[1:], where=command, remedy=f"see {command} --help")


def _report(error: EdgecError, settings: Settings) -> int:
    if settings.verbose:
        traceback.print_exception(type(error), error, error.__traceback__)
    print_error(str(error))
    if settings.as_json:
        _print_json(error.to_json(), error.exit_code)
    return error.exit_code


def _print_json(error: dict[str, str], code: int) -> None:
    """One line, so that it can also end a stream of events."""
    data = {"schema": "edgec.error/v1", **error, "exit_code": code}
    click.echo(json.dumps(data, ensure_ascii=False))
