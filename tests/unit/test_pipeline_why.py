import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from toy_build import chain

from edgec.pipeline.distributions import Installed
from edgec.pipeline.history import History
from edgec.pipeline.stage import StageIdentity, StageSpec, identify, ordered
from edgec.pipeline.store import Store
from edgec.pipeline.why import explain

OLD = StageIdentity(
    name="pack",
    inputs={"quantization.scheme": "q4f16_1", "group_size": 32},
    code={"edgec/passes/fuse.py": "aa", "edgec/files.py": "bb"},
    distributions={"apache-tvm": Installed("0.27.0.post1", "cc")},
    python="3.11",
    parents={"quantize": "dd"},
)


@pytest.mark.parametrize(
    ("change", "reasons"),
    [
        (
            {"inputs": {"quantization.scheme": "q4f32_1", "group_size": 32}},
            ["inputs.quantization.scheme: q4f16_1 -> q4f32_1"],
        ),
        (
            {"inputs": {"quantization.scheme": "q4f16_1", "new": [1, True]}},
            ["inputs.group_size: 32 -> (absent)", "inputs.new: (absent) -> [1,true]"],
        ),
        (
            {"code": {"edgec/passes/fuse.py": "ab", "edgec/new.py": "ee"}},
            [
                "code: edgec/files.py was removed",
                "code: edgec/new.py was added",
                "code: edgec/passes/fuse.py changed",
            ],
        ),
        (
            {"distributions": {"apache-tvm": Installed("0.28.0", "cd")}},
            ["apache-tvm: 0.27.0.post1 -> 0.28.0"],
        ),
        (
            {"distributions": {"apache-tvm": Installed("0.27.0.post1", "cd")}},
            ["apache-tvm: 0.27.0.post1 was installed again with other files"],
        ),
        ({"python": "3.12"}, ["python: 3.11 -> 3.12"]),
        ({"parents": {"quantize": "de"}}, ["stage quantize changed"]),
        (
            {"parents": {"load": "de"}},
            ["stage load is needed now", "stage quantize is not needed any more"],
        ),
        ({}, []),
    ],
)
def test_reasons(change: dict[str, Any], reasons: list[str]) -> None:
    assert explain(OLD, replace(OLD, **change), stored=True) == reasons


def test_reasons_that_are_no_change() -> None:
    assert explain(None, OLD, stored=False) == ["never built before"]
    assert explain(None, OLD, stored=True) == []
    assert explain(OLD, OLD, stored=False) == ["its entry was removed from the cache, or damaged"]


def test_a_long_value_is_cut() -> None:
    change = replace(OLD, inputs=OLD.inputs | {"group_size": "x" * 500})
    assert len(explain(OLD, change, stored=True)[0]) < 100


def test_a_value_that_looks_the_same_is_still_named() -> None:
    change = replace(OLD, inputs=OLD.inputs | {"group_size": "32"})
    assert explain(OLD, change, stored=True) == ['inputs.group_size: 32 -> "32"']


def test_every_difference_in_the_digest_has_a_reason() -> None:
    for change in (
        {"inputs": {}},
        {"code": {}},
        {"distributions": {}},
        {"python": "3.9"},
        {"parents": {}},
    ):
        other = replace(OLD, **change)
        assert other.digest != OLD.digest
        assert explain(OLD, other, stored=False)


def test_an_identity_survives_json() -> None:
    data = json.loads(json.dumps(OLD.to_json()))
    assert StageIdentity.from_json(data | {"more": 1}) == OLD
    assert StageIdentity.from_json(data).digest == OLD.digest


def test_the_order_of_stages_and_wrong_graphs() -> None:
    assert [spec.name for spec in ordered(chain())] == ["a", "b", "c", "d"]
    with pytest.raises(AssertionError, match="cycle"):
        ordered([StageSpec("x", "m", {}, parents=("y",)), StageSpec("y", "m", {}, parents=("x",))])
    with pytest.raises(AssertionError, match="one name"):
        ordered([StageSpec("x", "m", {}), StageSpec("x", "m", {})])


def test_history_remembers_builds_that_differ(tmp_path: Path) -> None:
    history = History(Store(tmp_path / "cache"))
    first, second = identify(chain(seconds=0)), identify(chain(seconds=1))
    assert history.builds("r", "host") == []
    assert history.previous("r", "host", first) is None

    history.record("r", "host", first)
    history.record("r", "host", first)
    assert [build.stages for build in history.builds("r", "host")] == [first]
    assert history.previous("r", "host", first) is None

    history.record("r", "host", second)
    previous = history.previous("r", "host", second)
    assert previous is not None
    assert previous.stages == first
    assert history.builds("r", "android") == []
    assert explain(previous.stages["d"], second["d"], stored=True) == [
        "inputs.do: write -> slow",
        "inputs.seconds: 0 -> 1",
        "stage b changed",
        "stage c changed",
    ]


def test_history_is_bounded_and_survives_damage(tmp_path: Path) -> None:
    store = Store(tmp_path / "cache")
    history = History(store)
    for seconds in range(12):
        history.record("r", "t", identify(chain(seconds=seconds)))
    builds = history.builds("r", "t")
    assert len(builds) == 8
    assert builds[0].stages["a"].inputs["seconds"] == 11

    next((store.root / "history").iterdir()).write_text('{"schema": "edgec.history/v1"}')
    assert history.builds("r", "t") == []
