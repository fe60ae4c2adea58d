"""``edgec targets``: the devices that edgec can build for."""

from __future__ import annotations

from dataclasses import asdict

import click

from edgec.cli.options import example, json_option
from edgec.cli.output import print_json, stdout_table
from edgec.target import TargetSummary, summaries


@click.command(epilog=example("edgec targets"))
@json_option
def command(*, as_json: bool) -> None:
    """List the devices to build for.

    Tells also where a library is run when it is verified: here means on this machine itself,
    other names are stand-ins for the device. The target 'host' means the best one for this
    machine; it is marked with a star.
    """
    found = summaries()
    if as_json:
        print_json("edgec.targets/v1", {"targets": [asdict(item) for item in found]})
        return
    stdout_table(
        ("NAME", "EXTENDS", "VERIFIED ON", "DESCRIPTION"),
        [
            (
                item.name + (" *" if item.is_host else ""),
                item.extends or "-",
                _verified_on(item),
                item.description,
            )
            for item in found
        ],
    )


def _verified_on(item: TargetSummary) -> str:
    if item.abstract:
        return "(abstract)"
    if item.missing is None:
        return "unknown"
    if item.missing:
        return f"not here: lacks {', '.join(item.missing)}"
    return "here" if item.standin == "native" else item.standin
