"""``edgec cache``: the stage store."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from edgec.cachefolder import cache_root
from edgec.cli.commands.why import command as why
from edgec.cli.describe import age_text
from edgec.cli.lazy import CommandGroup
from edgec.cli.options import example, json_option
from edgec.cli.output import (
    format_bytes,
    format_seconds,
    print_error,
    print_json,
    say,
    stdout_table,
)
from edgec.errors import CacheError
from edgec.pipeline.maintenance import gc, verify
from edgec.pipeline.store import Store

if TYPE_CHECKING:
    from collections.abc import Sequence

    from edgec.pipeline.entry import Entry

_DAY_S = 86400
_GB = 1 << 30
_DIGITS = 12


@click.group(
    cls=CommandGroup,
    invoke_without_command=True,
    epilog=example("edgec cache list", "edgec cache gc --max-age 30 --max-size 20"),
)
@click.pass_context
def command(context: click.Context) -> None:
    """Look at the stage store, and clean it.

    It holds the results of the stages, so that none runs twice. Everything in it can be made
    again. It lies in the user's cache folder, or where EDGEC_CACHE says.
    """
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


command.add_command(why, "why")


@command.command("list", epilog=example("edgec cache list"))
@json_option
def list_entries(*, as_json: bool) -> None:
    """List the results in the store, the most recently used first."""
    store = Store(cache_root())
    entries = store.entries()
    if as_json:
        listed = [_json(entry) for entry in entries]
        print_json("edgec.cache/v1", {"path": str(store.root), "entries": listed})
        return
    _print_entries(entries)
    say(f"{_sum(entries)} in {store.root}")


@command.command(
    "gc",
    short_help="Remove results that aren't wanted any more.",
    epilog=example("edgec cache gc --max-age 30 --max-size 20 --dry-run"),
)
@click.option(
    "--max-age",
    type=click.FloatRange(min=0),
    metavar="DAYS",
    help="Remove what wasn't used for so many days.",
)
@click.option(
    "--max-size",
    type=click.FloatRange(min=0),
    metavar="GB",
    help="Then remove the least recently used until this many GiB are left.",
)
@click.option("--dry-run", is_flag=True, help="Only list what would be removed.")
@json_option
def collect(*, max_age: float | None, max_size: float | None, dry_run: bool, as_json: bool) -> None:
    """Remove results that aren't wanted any more, and what killed builds left behind.

    Without limits only damaged results and leftovers are removed.
    """
    store = Store(cache_root())
    removed = gc(
        store,
        older_than_s=None if max_age is None else max_age * _DAY_S,
        max_bytes=None if max_size is None else int(max_size * _GB),
        dry_run=dry_run,
    )
    if as_json:
        listed = [_json(entry) for entry in removed]
        print_json("edgec.cache-gc/v1", {"dry_run": dry_run, "removed": listed})
        return
    if removed:
        _print_entries(removed)
    _say_removed(removed, store, "would remove" if dry_run else "removed")


@command.command(epilog=example("edgec cache clear"))
@json_option
def clear(*, as_json: bool) -> None:
    """Remove all results."""
    store = Store(cache_root())
    removed = gc(store, older_than_s=0)
    if as_json:
        print_json("edgec.cache-gc/v1", {"dry_run": False, "removed": [_json(e) for e in removed]})
        return
    _say_removed(removed, store, "removed")


@command.command(
    "verify", short_help="Check every result's bytes.", epilog=example("edgec cache verify")
)
@click.option(
    "--remove", is_flag=True, help="Remove what is damaged; it is made again when needed."
)
@json_option
@click.pass_context
def check(context: click.Context, *, remove: bool, as_json: bool) -> None:
    """Read every result, and compare it with the digests taken when it was made.

    The exit code is 6 if one is damaged and stays.
    """
    store = Store(cache_root())
    damaged = verify(store, remove=remove)
    if as_json:
        listed = [{"path": str(path), "problems": found} for path, found in damaged.items()]
        print_json("edgec.cache-verify/v1", {"damaged": listed, "removed": remove})
    else:
        for path, found in damaged.items():
            click.echo(f"{path}: {', '.join(found)}")
    if not damaged:
        say(f"no result is damaged in {store.root}")
    elif remove:
        say(f"removed {_counted(len(damaged))} from {store.root}")
    else:
        print_error(f"{_counted(len(damaged))} damaged; add --remove to remove them")
        context.exit(CacheError.exit_code)


def _print_entries(entries: Sequence[Entry]) -> None:
    now = time.time()
    stdout_table(
        ("STAGE", "DIGEST", ">SIZE", ">TOOK", "MADE", "LAST USED"),
        [
            (
                entry.name,
                entry.digest[:_DIGITS],
                format_bytes(entry.bytes),
                format_seconds(entry.seconds),
                entry.created[:16].replace("T", " ") + " UTC",
                age_text(now - entry.last_used),
            )
            for entry in entries
        ],
    )


def _say_removed(removed: Sequence[Entry], store: Store, verb: str) -> None:
    say(
        f"{verb} {_sum(removed)} from {store.root}"
        if removed
        else f"nothing to remove in {store.root}"
    )


def _sum(entries: Sequence[Entry]) -> str:
    return f"{_counted(len(entries))}, {format_bytes(sum(entry.bytes for entry in entries))}"


def _counted(count: int) -> str:
    return f"{count} result" if count == 1 else f"{count} results"


def _json(entry: Entry) -> dict[str, Any]:
    return {
        "stage": entry.name,
        "digest": entry.digest,
        "path": str(entry.path),
        "bytes": entry.bytes,
        "seconds": entry.seconds,
        "created": entry.created,
        "last_used": round(entry.last_used, 3),
    }
