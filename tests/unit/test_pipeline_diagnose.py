from pathlib import Path

import pytest
from toy_build import build, chain, toy

from edgec.pipeline.diagnose import Diagnosis, diagnose
from edgec.pipeline.history import History
from edgec.pipeline.stage import StageSpec, identify
from edgec.pipeline.store import Store
from edgec.pipeline.trees import remove_tree


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache")


def run(specs: list[StageSpec], store: Store) -> None:
    build(specs, store)
    History(store).record("r", "t", identify(specs))


def look(specs: list[StageSpec], store: Store) -> Diagnosis:
    return diagnose(specs, store, "r", "t")


def reasons(diagnosis: Diagnosis) -> dict[str, list[str]]:
    return {stage.name: list(stage.reasons) for stage in diagnosis.stages}


def missing(diagnosis: Diagnosis) -> list[str]:
    return [stage.name for stage in diagnosis.stages if not stage.stored]


def test_before_the_first_build_everything_runs(store: Store) -> None:
    found = look(chain(), store)
    assert (found.changed, found.last, found.compared) == (True, None, None)
    assert missing(found) == ["a", "b", "c", "d"]
    assert reasons(found) == {name: ["never built before"] for name in "abcd"}


def test_after_the_first_build_nothing_runs_and_it_is_told_why_it_did(store: Store) -> None:
    run(chain(), store)
    found = look(chain(), store)
    assert not found.changed
    assert found.last is not None
    assert found.compared is None
    assert missing(found) == []
    assert reasons(found) == {name: ["never built before"] for name in "abcd"}


def test_a_change_is_named_where_it_happens(store: Store) -> None:
    def specs(value: int) -> list[StageSpec]:
        return [toy("a"), toy("b", parents=("a",), value=value), toy("c", parents=("b",))]

    run(specs(1), store)
    found = look(specs(2), store)
    assert found.changed
    assert found.compared == found.last
    assert missing(found) == ["b", "c"]
    assert reasons(found) == {"a": [], "b": ["inputs.value: 1 -> 2"], "c": ["stage b changed"]}

    run(specs(2), store)
    after = look(specs(2), store)
    assert not after.changed
    assert after.compared is not None
    assert missing(after) == []
    assert reasons(after) == reasons(found)

    back = look(specs(1), store)
    assert back.changed
    assert missing(back) == []
    assert reasons(back)["b"] == ["inputs.value: 2 -> 1"]


def test_a_result_that_was_removed_is_the_reason_itself(store: Store) -> None:
    run([toy("a", value=1)], store)
    run([toy("a", value=2)], store)
    entry = store.lookup("a", look([toy("a", value=2)], store).stages[0].digest)
    assert entry is not None
    remove_tree(entry.path)

    found = look([toy("a", value=2)], store)
    assert missing(found) == ["a"]
    assert reasons(found) == {"a": ["its entry was removed from the cache, or damaged"]}


def test_results_of_another_target_are_used_without_a_reason(store: Store) -> None:
    build(chain(), store)
    found = look(chain(), store)
    assert missing(found) == []
    assert not any(reasons(found).values())


def test_a_stage_that_is_new_in_a_build(store: Store) -> None:
    run([toy("a")], store)
    found = look([toy("a"), toy("b", parents=("a",))], store)
    assert reasons(found) == {"a": [], "b": ["never built before"]}
