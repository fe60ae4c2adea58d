"""``edgec doctor``: is everything there?"""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from edgec.cli.options import example, json_option
from edgec.cli.output import print_json, say
from edgec.diagnosis.diagnose import diagnose
from edgec.errors import ToolchainError

if TYPE_CHECKING:
    from edgec.diagnosis.check import Check

_COLOURS = {"ok": "green", "warning": "yellow", "missing": "red"}
_STATE_WIDTH = max(map(len, _COLOURS))
_NAME_WIDTH = len("target x86-64-amx")


@click.command(epilog=example("edgec doctor", "edgec doctor --target x86-64-amx"))
@click.option(
    "-t",
    "--target",
    "targets",
    multiple=True,
    metavar="TARGET",
    help="Look at this target in place of this machine's. May be repeated.",
)
@json_option
@click.pass_context
def command(context: click.Context, *, targets: tuple[str, ...], as_json: bool) -> None:
    """Check that everything needed is installed and works.

    What is missing ends with exit code 4; a warning is of something that only some uses need.
    """
    checks = []
    for check in diagnose(targets):
        checks.append(check)
        if not as_json:
            _print(check)
    missing = [check.name for check in checks if check.state == "missing"]
    warnings = sum(check.state == "warning" for check in checks)
    if as_json:
        data = {"ok": not missing, "checks": [asdict(check) for check in checks]}
        print_json("edgec.doctor/v1", data)
    else:
        say(_summary(missing, warnings))
    if missing:
        context.exit(ToolchainError.exit_code)


def _print(check: Check) -> None:
    """A line for the check, and below it what is needed and what to do, unless all is well."""
    state = click.style(check.state.ljust(_STATE_WIDTH), fg=_COLOURS[check.state])
    click.echo(f"{state}  {check.name.ljust(_NAME_WIDTH)}  {check.found}")
    if check.state == "ok":
        return
    indent = " " * (_STATE_WIDTH + _NAME_WIDTH + 4)
    if check.needed:
        click.echo(f"{indent}needed: {check.needed}")
    if check.remedy:
        click.echo(f"{indent}{check.remedy}")


def _summary(missing: list[str], warnings: int) -> str:
    noun = "warning" if warnings == 1 else "warnings"
    rest = f" ({warnings} {noun})" if warnings else ""
    if missing:
        return click.style(f"missing: {', '.join(missing)}{rest}", fg="red", bold=True)
    return click.style(f"everything needed is there{rest}", bold=True)
