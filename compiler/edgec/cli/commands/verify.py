"""``edgec verify``: repeat the checks of a built model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgec.artifacts.locate import locate_artifact
from edgec.cli.describe import quality_text
from edgec.cli.loading import artifact_argument, title
from edgec.cli.options import example, json_option, out_option
from edgec.cli.output import format_bytes, print_json, say, stdout_table
from edgec.cli.task import task
from edgec.verification.repeat import repeat_files, repeat_golden, repeat_reference

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

Row = tuple[str, str, str, str]

_WAYS = {
    "all_logits": "all logits at once",
    "prefill": "prefill",
    "chunked_prefill": "prefill in chunks",
    "decode": "decode one by one",
    "batch": "batch",
}
_GOLDEN = {"artifact": "golden outputs of the build", "reference": "golden outputs in float32"}
_SHIPPED = {"shipped": "its weights in float32", "all_logits": "all logits at once"}


@click.command(
    epilog=example("edgec verify tinypy", "edgec verify artifacts/tinypy/x86-64-v4 --reference")
)
@artifact_argument
@click.option(
    "--reference",
    is_flag=False,
    flag_value="",
    metavar="[MODEL]",
    help="Compare also with the original model, on the recipe's text; needs torch. MODEL is a"
    " folder or hf:ORG/NAME@REV.  [default: what the recipe names]",
)
@out_option
@json_option
def command(*, artifact: str, reference: str | None, out: Path, as_json: bool) -> None:
    """Repeat the checks of a built model.

    ARTIFACT is the folder of an artifact, or the name of a recipe that was built. Every file is
    compared with the manifest, and the library is run on the golden inputs that the artifact
    carries. A difference that rounding doesn't explain ends with exit code 5.
    """
    found = locate_artifact(artifact, out)
    with task("files", as_json=as_json):
        files = repeat_files(found)
    with task("golden", as_json=as_json):
        golden = repeat_golden(found)
    report = None
    if reference is not None:
        with task("reference", as_json=as_json) as progress:
            report = repeat_reference(found, reference, progress)
    if as_json:
        data = {
            "artifact": str(found.folder),
            "name": found.manifest["name"],
            "target": found.manifest["target"],
            "files": {"count": files.count, "bytes": files.nbytes},
            "golden": golden,
            "reference": report,
        }
        print_json("edgec.verify/v1", data)
        return
    say(title(found))
    say(f"{files.count} files, {format_bytes(files.nbytes)}, are as the manifest says")
    rows = [*_golden_rows(golden), *_reference_rows(report)]
    if rows:
        stdout_table(("COMPUTED", "COMPARED WITH", ">MAX |Δlogit|", ">LIMIT"), rows)
    _say_rest(golden, report)


def _golden_rows(golden: Mapping[str, Any] | None) -> list[Row]:
    if golden is None:
        return []
    return [
        _row(_WAYS[way], against, error, golden["tolerance"])
        for kind, against in _GOLDEN.items()
        for way, error in golden.get(kind, {}).items()
    ]


def _reference_rows(report: Mapping[str, Any] | None) -> list[Row]:
    if report is None:
        return []
    rows = []
    if compiler := report.get("compiler"):
        name = f"text of {report['text']['tokens']} tokens"
        error = compiler["max_logit_error"]
        rows.append(_row(name, _SHIPPED["shipped"], error, compiler["tolerance"]))
    if paths := report.get("paths"):
        rows += [
            _row(f"text, {label}", _SHIPPED[paths["against"]], paths[way], paths["tolerance"])
            for way, label in _WAYS.items()
        ]
    return rows


def _row(computed: str, against: str, error: float, limit: float) -> Row:
    return (computed, against, f"{error:.1e}", f"{limit:.1e}")


def _say_rest(golden: Mapping[str, Any] | None, report: Mapping[str, Any] | None) -> None:
    if golden is None:
        say("there are no golden outputs: the artifact was built without being run")
    if report is None:
        return
    if total := report.get("total"):
        click.echo(f"against the original model: {quality_text(total)}")
    if not report["text"]["same"]:
        say("the text isn't the one of the build: the recipe or the Python version is another")
