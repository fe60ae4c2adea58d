"""``edgec package``: built models as files that an app developer drops into a project."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgec.artifacts.locate import locate_artifact
from edgec.cli.options import example, json_option, out_option
from edgec.cli.output import format_bytes, print_json, say, stdout_table
from edgec.cli.task import task
from edgec.packaging.model import model_id
from edgec.packaging.package import APPS, DELIVERIES, parse_urls, plan_package

if TYPE_CHECKING:
    from edgec.packaging.package import Package


@click.command(
    epilog=example(
        "edgec package artifacts/tinypy/android-adreno --output app/models",
        "edgec package artifacts/tinypy/ios-metal --output app/models --delivery fast-follow",
        "edgec package --app web artifacts/tinypy/webgpu --output site",
    )
)
@click.argument("artifacts", metavar="ARTIFACT...", nargs=-1, required=True)
@click.option(
    "--app",
    type=click.Choice(APPS),
    help="What the package is for; web is a page for browsers.  [default: what the artifacts are for]",
)
@click.option(
    "--output",
    "output",
    type=click.Path(path_type=Path),
    required=True,
    metavar="DIR",
    help="Folder of the package. A package that is there is replaced, and nothing else.",
)
@click.option(
    "--weights-url",
    "urls",
    multiple=True,
    metavar="[MODEL=]URL",
    help="Where the app downloads the weights, https://... or HF://OWNER/NAME; they are then not in"
    " the package. May be repeated.",
)
@click.option(
    "--bundle-weights", is_flag=True, help="Put weights into the package that have a URL too."
)
@click.option(
    "--delivery",
    type=click.Choice(DELIVERIES),
    help="Have the app store deliver the weights, in packs of its own: Play's AI packs, Apple's"
    " Background Assets.  [default: they come with the app, or are pushed to the device]",
)
@click.option(
    "--model-manifest",
    is_flag=True,
    help="Have WebLLM load the models by the manifests beside their weights, and refuse a library"
    " that says something else.  [default: it goes by the names of the library's functions]",
)
@click.option("--dry-run", is_flag=True, help="Print the files and their sizes, and write nothing.")
@out_option
@json_option
def command(
    *,
    artifacts: tuple[str, ...],
    app: str | None,
    output: Path,
    urls: tuple[str, ...],
    bundle_weights: bool,
    delivery: str | None,
    model_manifest: bool,
    dry_run: bool,
    out: Path,
    as_json: bool,
) -> None:
    """Make files for an Android or iOS app, or a page for browsers, from built models.

    ARTIFACT is the folder of an artifact for Android, iOS or browsers, or the name of a recipe that
    was built for one. Several models share one package, and one app. The package holds their
    libraries, their weights (or where to download them), the configuration files of MLC's apps, and
    a Gradle module, a Swift package or a page; its README.md says the next three steps.
    """
    found = [locate_artifact(name, out) for name in artifacts]
    with task("check", as_json=as_json):
        package = plan_package(
            found,
            urls=parse_urls(urls, [model_id(artifact) for artifact in found]),
            bundle=bundle_weights,
            delivery=delivery,
            app=app,
            model_manifest=model_manifest,
        )
    replaces = package.check(output)
    if not dry_run:
        with task("package", as_json=as_json) as progress:
            package.write(output, progress)
    if as_json:
        data = {
            "output": str(output),
            "written": not dry_run,
            "replaced": replaces,
            "bytes": package.content.nbytes,
            "warnings": list(package.warnings),
            **package.manifest,
        }
        print_json(data.pop("schema"), data)
        return
    for warning in package.warnings:
        say(f"warning: {warning}")
    if dry_run:
        _print_files(package, output, replaces=replaces)
        return
    _say_summary(package)
    click.echo(str(output))


def _print_files(package: Package, output: Path, *, replaces: bool) -> None:
    rows = [(format_bytes(entry.nbytes), path) for path, entry in package.content]
    stdout_table((">SIZE", "FILE"), rows)
    verb = "would replace the package" if replaces else "would be written"
    say(f"{format_bytes(package.content.nbytes)} in {len(rows)} files {verb} in {output}")


def _say_summary(package: Package) -> None:
    for model in package.models:
        place = "in the package" if model.bundled else f"at {model.web_url}"
        say(
            f"{model.model_id}: library {model.model_lib},"
            f" {format_bytes(model.estimated_vram_bytes)} of memory,"
            f" weights of {format_bytes(model.nbytes)} {place}"
        )
    count = len(package.content.entries)
    size = format_bytes(package.content.nbytes)
    say(f"{size} in {count} files; README.md says the next three steps")
