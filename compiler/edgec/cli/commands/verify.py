"""``edgec verify``: repeat the checks of a built model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from edgec.artifacts.locate import locate_artifact
from edgec.cli.describe import quality_text
from edgec.cli.kernel_lines import kernel_lines
from edgec.cli.loading import artifact_argument, title
from edgec.cli.options import example, json_option, out_option
from edgec.cli.output import format_bytes, print_json, print_lines, say, stdout_table
from edgec.cli.task import task
from edgec.errors import UsageError
from edgec.verification.machine_code import has_machine_code, prove_machine_code
from edgec.verification.repeat import (
    repeat_files,
    repeat_golden,
    repeat_kernels,
    repeat_reference,
    shows_kernels,
)

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
# Real devices that can be at this machine, and the stand-ins that run on them.
_DEVICES = {"cuda": "gpu"}
_SHIPPED = {"shipped": "its weights in float32", "all_logits": "all logits at once"}


@click.command(
    epilog=example(
        "edgec verify tinypy",
        "edgec verify artifacts/tinypy/x86-64-v4 --reference",
        "edgec verify artifacts/tinypy/cuda --device cuda",
    )
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
@click.option(
    "--standin",
    metavar="NAME",
    help="Run the library on this stand-in: emulator, pocl, qemu, gpu, native.  [default: its"
    " target's]",
)
@click.option(
    "--device",
    type=click.Choice(sorted(_DEVICES)),
    help="Run the library on a real device of this machine: cuda is --standin gpu.",
)
@click.option(
    "--kernels/--no-kernels",
    default=True,
    help="Run each kernel alone beside its reference, where the stand-in shows it.  [default:"
    " kernels]",
)
@out_option
@json_option
def command(
    *,
    artifact: str,
    reference: str | None,
    standin: str | None,
    device: str | None,
    kernels: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Repeat the checks of a built model.

    ARTIFACT is the folder of an artifact, or the name of a recipe that was built. Every file is
    compared with the manifest, each kernel of a library for another device is run alone, with its
    memory accesses checked, and the library is run on the golden inputs that the artifact carries.
    A difference that rounding doesn't explain ends with exit code 5.
    """
    if device is not None:
        standin = _on_device(device, standin)
    found = locate_artifact(artifact, out)
    with task("files", as_json=as_json):
        files = repeat_files(found)
    machine_code = alone = None
    if kernels and has_machine_code(found.library):
        with task("compile", as_json=as_json) as progress:
            machine_code = prove_machine_code(found.library, progress)
    if kernels and shows_kernels(found, standin):
        with task("kernels", as_json=as_json) as progress:
            alone = repeat_kernels(found, progress, standin)
    with task("golden", as_json=as_json):
        golden = repeat_golden(found, standin)
    report = None
    if reference is not None:
        with task("reference", as_json=as_json) as progress:
            report = repeat_reference(found, reference, progress, standin)
    used = standin or found.manifest["standin"]
    if as_json:
        data = {
            "artifact": str(found.folder),
            "name": found.manifest["name"],
            "target": found.manifest["target"],
            "standin": used,
            "files": {"count": files.count, "bytes": files.nbytes},
            "machine_code": machine_code,
            "kernels": alone,
            "golden": golden,
            "reference": report,
        }
        print_json("edgec.verify/v1", data)
        return
    say(title(found))
    say(f"{files.count} files, {format_bytes(files.nbytes)}, are as the manifest says")
    if machine_code is not None:
        print_lines([("code", _proof(machine_code))])
    if alone is not None:
        print_lines(kernel_lines(alone, used))
    elif kernels and found.reference_kernels.is_file():
        say(f"no kernel was checked alone: the stand-in {used} doesn't show them")
    rows = [*_golden_rows(golden), *_reference_rows(report)]
    if rows:
        measure = ">MAX |Δlogit|" if found.interface is None else ">ERROR OF ITS SCALE"
        stdout_table(("COMPUTED", "COMPARED WITH", measure, ">LIMIT"), rows)
    _say_rest(golden, report)


def _on_device(device: str, standin: str | None) -> str:
    """The stand-in that runs libraries on a real device."""
    found = _DEVICES[device]
    if standin not in {None, found}:
        raise UsageError(
            f"--device {device} means --standin {found}, and {standin} is named too",
            where="edgec verify",
            remedy="leave one of them out",
        )
    return found


def _proof(machine_code: Mapping[str, Any]) -> str:
    which = f"the machine code for {', '.join(machine_code['architectures'])}"
    if machine_code["proven"]:
        return f"{which} is what the kernels' text compiles to"
    return f"{which} was not compared with the kernels' text: {machine_code['reason']}"


def _golden_rows(golden: Mapping[str, Any] | None) -> list[Row]:
    if golden is None:
        return []
    return [
        _row(_WAYS.get(way, way), against, error, golden["tolerance"])
        for kind, against in _GOLDEN.items()
        for way, error in golden.get(kind, {}).items()
    ]


def _reference_rows(report: Mapping[str, Any] | None) -> list[Row]:
    if report is None:
        return []
    rows = []
    if compiler := report.get("compiler"):
        text = report["text"]
        name = f"text of {text.get('artifact_tokens', text['tokens'])} tokens"
        error = compiler["max_logit_error"]
        rows.append(_row(name, _SHIPPED["shipped"], error, compiler["tolerance"]))
    if paths := report.get("paths"):
        rows += [
            _row(f"text, {label}", _SHIPPED[paths["against"]], paths[way], paths["tolerance"])
            for way, label in _WAYS.items()
        ]
    if images := report.get("images"):
        name = f"image of {images['tokens']} tokens, relative"
        rows.append(_row(name, _SHIPPED["shipped"], images["max_error"], images["tolerance"]))
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
