"""``edgec plan``: what a build would do, without doing it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from edgec.cli.describe import memory_text
from edgec.cli.options import (
    example,
    json_option,
    recipe_argument,
    set_option,
    target_option,
    verify_option,
    weights_option,
)
from edgec.cli.output import format_bytes, format_count, print_error, print_json, stdout_table
from edgec.cli.plans import read_request
from edgec.errors import VerificationError
from edgec.pipeline.plan import BuildPlan
from edgec.pipeline.preview import preview
from edgec.pipeline.preview_generic import preview_generic

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgec.pipeline.plan_generic import GenericPlan
    from edgec.pipeline.preview import BudgetCheck, Preview
    from edgec.pipeline.store import Store

_LABEL_WIDTH = 9
_BUDGETS = {"memory_mb": "memory", "artifact_mb": "artifact"}


@click.command(
    epilog=example("edgec plan tinypy", "edgec plan tinypy -s quantization.scheme=q0f32")
)
@recipe_argument
@target_option
@set_option
@weights_option
@verify_option
@json_option
@click.pass_context
def command(
    context: click.Context,
    *,
    recipe: str,
    targets: tuple[str, ...],
    overrides: tuple[str, ...],
    weights: str,
    verify: bool,
    as_json: bool,
) -> None:
    """Show what a build would do, without doing it.

    Lists the stages that would run and the first reason for each, and the sizes and the memory
    as far as they are known. The exit code is 5 if a budget of the recipe would be broken.
    """
    request = read_request(recipe, overrides, targets, weights)
    name = request.loaded.recipe.name
    found = {
        target.name: _preview(request.plan(target, verify=verify), request.store)
        for target in request.targets
    }
    if as_json:
        listed = [_json(name, target, item) for target, item in found.items()]
        print_json("edgec.plan/v1", {"builds": listed})
    else:
        for index, (target, item) in enumerate(found.items()):
            if index:
                click.echo()
            _print(f"{name} for {target}", item)
    over = [
        f"{_share(check)} for {target}"
        for target, item in found.items()
        for check in item.budgets
        if not check.ok
    ]
    if over:
        print_error(f"over budget: {', '.join(over)}")
        context.exit(VerificationError.exit_code)


def _preview(plan: BuildPlan | GenericPlan, store: Store) -> Preview:
    return preview(plan, store) if isinstance(plan, BuildPlan) else preview_generic(plan, store)


def _print(build: str, item: Preview) -> None:
    click.echo(click.style(build, bold=True))
    stdout_table(
        ("STAGE", "ACTION", "WHY"),
        [
            (
                stage.name,
                "cached" if stage.stored else "run",
                "" if stage.stored else _first(stage.reasons),
            )
            for stage in item.diagnosis.stages
        ],
    )
    if not item.weights:
        click.echo("\nweights and sizes are known once the model is imported")
        return
    click.echo()
    stdout_table(
        ("WEIGHTS", ">TENSORS", ">NUMBERS", ">SIZE"),
        [
            (
                group.storage,
                str(group.parameters),
                format_count(group.weights),
                format_bytes(group.bytes),
            )
            for group in item.weights
        ],
    )
    click.echo()
    for label, text in _facts(item):
        click.echo(f"{click.style(label.ljust(_LABEL_WIDTH), dim=True)} {text}")


def _first(reasons: tuple[str, ...]) -> str:
    more = f" (and {len(reasons) - 1} more)" if len(reasons) > 1 else ""
    return reasons[0] + more


def _facts(item: Preview) -> Iterable[tuple[str, str]]:
    yield "weights", f"{format_bytes(item.memory.weights)}, {item.bits_per_weight:.2f} bits each"
    known = "" if item.memory.workspace is not None else "; workspace known once compiled"
    yield "memory", memory_text(item.memory.to_json(), item.activations) + known
    if item.library is None:
        yield "artifact", f"at least {format_bytes(item.artifact)}; library known once compiled"
    else:
        library = format_bytes(item.library)
        yield "artifact", f"about {format_bytes(item.artifact)}, of which library {library}"
    if item.budgets:
        yield "budget", ", ".join(map(_budget, item.budgets))


def _budget(check: BudgetCheck) -> str:
    verdict = "over" if not check.ok else "kept" if check.complete else "kept so far"
    return f"{_share(check)} ({verdict})"


def _share(check: BudgetCheck) -> str:
    return f"{_BUDGETS[check.name]} {format_bytes(check.bytes)} of {format_bytes(check.limit)}"


def _json(recipe: str, target: str, item: Preview) -> dict[str, Any]:
    return {
        "recipe": recipe,
        "target": target,
        "stages": [
            {**asdict(stage), "action": "cached" if stage.stored else "run"}
            for stage in item.diagnosis.stages
        ],
        "weights": [asdict(group) for group in item.weights],
        "bits_per_weight": round(item.bits_per_weight, 4),
        "memory": item.memory.to_json(),
        "library_bytes": item.library,
        "artifact_bytes": item.artifact,
        "budgets": [{**asdict(check), "ok": check.ok} for check in item.budgets],
    }
