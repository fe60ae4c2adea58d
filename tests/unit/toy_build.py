"""Builds with toy stages, for tests in this process and, as a script, in one of its own."""

import sys
from pathlib import Path

from edgec.pipeline.events import Event
from edgec.pipeline.executor import StageResult, execute
from edgec.pipeline.stage import StageSpec
from edgec.pipeline.store import Store


def toy(
    name: str,
    do: str = "write",
    *,
    parents: tuple[str, ...] = (),
    local: dict[str, object] | None = None,
    timeout_s: float = 30.0,
    **inputs: object,
) -> StageSpec:
    return StageSpec(
        name=name,
        module="toy_stages",
        inputs={"name": name, "do": do, **inputs},
        local=local or {},
        parents=parents,
        timeout_s=timeout_s,
    )


def chain(*, seconds: float = 0.0, ran: Path | None = None) -> list[StageSpec]:
    """Four stages: a, then b and c at the same time, then d."""
    do = "slow" if seconds else "write"
    local: dict[str, object] = {"ran": ran} if ran else {}
    return [
        toy("d", do, parents=("b", "c"), local=local, seconds=seconds),
        toy("b", do, parents=("a",), local=local, seconds=seconds),
        toy("c", do, parents=("a",), local=local, seconds=seconds),
        toy("a", do, local=local, seconds=seconds),
    ]


def build(
    specs: list[StageSpec], store: Store, **options: object
) -> tuple[dict[str, StageResult], list[Event]]:
    events: list[Event] = []
    return execute(specs, store, events=events.append, **options), events


if __name__ == "__main__":
    results, _ = build(
        chain(seconds=float(sys.argv[3]), ran=Path(sys.argv[2])), Store(Path(sys.argv[1]))
    )
    for name, result in results.items():
        sys.stdout.write(f"{name}:{result.hit}\n")
