"""The report of a comparison, and what is made of it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
from verification_fakes import FakeEngine, FakeModel, ForgetsAtChunks, random_windows

from edgec.cli.describe import quality_lines
from edgec.errors import UsageError, VerificationError
from edgec.progress import Silent
from edgec.verification.run import WHOLE, Extent, Report, verify
from edgec.verification.statistics import Comparison
from edgec.verification.text import Document, text_digest
from edgec.verification.tolerance import tolerance
from edgec.verification.verdict import check_agreement, gates

if TYPE_CHECKING:
    import numpy as np

WINDOWS = random_windows(40, 30, 20, 10, 30)
DOCUMENTS = [Document("a.py", "x"), Document("b.py", "y")]


@dataclass(frozen=True)
class Quality:
    max_kl: float | None = None
    min_top1: float | None = None
    max_perplexity_ratio: float | None = None


class Counting(Silent):
    def __init__(self) -> None:
        self.total = 0
        self.done = 0

    def start(self, total: int, unit: str) -> None:
        assert unit == "tokens"
        self.total += total

    def advance(self, amount: int) -> None:
        self.done += amount


def report(
    engine: FakeEngine | None = None,
    original: FakeModel | None = None,
    shipped: FakeModel | None = None,
    extent: Extent = WHOLE,
    rounded: FakeModel | None = None,
) -> Report:
    progress = Counting()
    result = verify(
        engine or FakeEngine(),
        original,
        shipped,
        WINDOWS,
        documents=DOCUMENTS,
        dtype="float32",
        progress=progress,
        extent=extent,
        rounds=rounded is not None,
        roundings={} if rounded is None else {"activations": rounded},
    )
    assert progress.done == progress.total > 0
    return result


@pytest.mark.parametrize(
    ("tokens", "lengths"),
    [(None, [40, 30, 20, 10, 30]), (70, [40, 30]), (72, [40, 30, 2]), (71, [40, 30]), (0, [2])],
)
def test_a_part_of_the_text(tokens: int | None, lengths: list[int]) -> None:
    parts = Extent(tokens=tokens).cut(WINDOWS)
    assert [len(part) for part in parts] == lengths
    assert all(part == whole[: len(part)] for part, whole in zip(parts, WINDOWS, strict=False))


def test_a_slow_artifact_runs_a_part_and_the_references_all() -> None:
    extent = Extent(tokens=50, path_tokens=8)
    engine = FakeEngine()
    result = report(engine, FakeModel(noise=0.5), FakeModel(), extent)
    assert (result["text"]["tokens"], result["text"]["artifact_tokens"]) == (130, 50)
    assert result["compiler"]["max_logit_error"] == 0
    # The whole text's loss is another than that of its beginning.
    assert result["quantizer"]["kl"] != result["total"]["kl"]
    assert max(engine.chunks) <= 8


def test_all_sections() -> None:
    original, shipped = FakeModel(noise=0.5), FakeModel()
    result = report(original=original, shipped=shipped)
    assert list(result) == ["text", "compiler", "quantizer", "total", "paths"]
    assert result["text"] == {
        "documents": ["a.py", "b.py"],
        "windows": 5,
        "tokens": 130,
        "artifact_tokens": 130,
        "digest": text_digest(DOCUMENTS),
    }
    assert result["compiler"]["max_logit_error"] == 0
    assert result["compiler"]["tolerance"] == 1e-3
    assert result["compiler"]["positions"] == 130
    assert result["compiler"]["predictions"] == 125
    assert result["total"] == result["quantizer"]
    assert 0.3 < result["total"]["max_logit_error"] <= 0.5
    assert result["total"]["kl"] > 1e-3
    assert result["paths"]["against"] == "shipped"
    assert result["paths"]["tolerance"] == 1e-3
    json.dumps(result, allow_nan=False)
    check_agreement(result)


def test_the_sections_compare_the_right_way_round() -> None:
    original, shipped, engine = FakeModel(seed=1), FakeModel(seed=2), FakeEngine(FakeModel(seed=3))
    result = report(engine, original, shipped)
    pairs = {
        "compiler": (shipped, engine.model),
        "quantizer": (original, shipped),
        "total": (original, engine.model),
    }
    for section, (first, second) in pairs.items():
        comparison = Comparison("", "")
        for ids in WINDOWS:
            comparison.update(first.logits(ids), second.logits(ids), ids)
        expected = comparison.summary()
        assert {name: result[section][name] for name in expected} == expected


def test_the_same_reference_twice_is_run_once() -> None:
    class Once(FakeModel):
        calls = 0

        def logits(self, ids: list[int], calls: Any = ()) -> np.ndarray:
            Once.calls += 1
            return super().logits(ids, calls)

    model = Once()
    result = report(original=model, shipped=model)
    assert Once.calls == len(WINDOWS) + 3
    assert result["quantizer"]["kl"] == 0


def test_without_references_the_paths_are_compared_with_each_other() -> None:
    result = report()
    assert list(result) == ["text", "paths"]
    assert result["paths"]["against"] == "all_logits"
    check_agreement(result)
    assert gates(result, Quality(1e-9, 1.0, 1.0)) == []
    broken = report(ForgetsAtChunks())
    with pytest.raises(VerificationError, match=r"\(chunked_prefill\) differ from its own logits"):
        check_agreement(broken)


def test_one_reference() -> None:
    assert list(report(original=FakeModel())) == ["text", "total", "paths"]
    assert list(report(shipped=FakeModel())) == ["text", "compiler", "paths"]


def test_without_an_engine_the_quantizer_is_measured() -> None:
    progress = Counting()
    models = FakeModel(seed=1), FakeModel(seed=2)
    result = verify(None, *models, WINDOWS, documents=DOCUMENTS, dtype="float16", progress=progress)
    assert progress.done == progress.total
    assert list(result) == ["text", "quantizer"]
    assert result["quantizer"] == report(None, *models)["quantizer"]
    check_agreement(result)
    # The loss is the quantizer's: gates hold for it where the library can't be run.
    assert len(gates(result, Quality(1e-9, 1.0, 1e-9))) == 3
    assert gates({"text": result["text"]}, Quality(1e-9, 1.0, 1e-9)) == []


def test_a_compiler_that_computes_something_else() -> None:
    result = report(FakeEngine(FakeModel(noise=0.01)), shipped=FakeModel())
    assert result["compiler"]["max_logit_error"] > 1e-3
    with pytest.raises(VerificationError) as caught:
        check_agreement(result)
    text = str(caught.value)
    error = result["compiler"]["max_logit_error"]
    assert f"on the text differ from the reference with the shipped weights by {error:.6g}" in text
    assert "more than the 0.001 that rounding explains" in text
    assert "(batch)" in text
    assert caught.value.exit_code == 5


def test_rounding_is_no_defect() -> None:
    check_agreement(report(FakeEngine(FakeModel(noise=5e-4)), shipped=FakeModel()))


def test_a_nan_in_a_report_is_a_defect() -> None:
    result = report()
    result["paths"]["decode"] = float("nan")
    with pytest.raises(VerificationError, match=r"\(decode\)"):
        check_agreement(result)


def test_gates() -> None:
    total = {"kl": 0.123456, "top1": 0.85, "perplexity_ratio": 1.25}
    result = {"total": total}
    assert gates(result, Quality()) == []
    assert gates(result, Quality(0.123456, 0.85, 1.25)) == []
    assert gates(result, Quality(0.1, 0.9, 1.1)) == [
        "the mean KL divergence of 0.123456 is above quality.max_kl, 0.1",
        "the top-1 agreement of 0.85 is below quality.min_top1, 0.9",
        "the perplexity ratio of 1.25 is above quality.max_perplexity_ratio, 1.1",
    ]
    assert len(gates(result, Quality(max_kl=0.1))) == 1
    assert len(gates(result, Quality(min_top1=0.86))) == 1
    assert len(gates(result, Quality(max_perplexity_ratio=1.2))) == 1


def test_windows_that_are_too_long() -> None:
    with pytest.raises(UsageError, match=r"quality\.window: windows have 300 tokens, .* 256"):
        verify(
            FakeEngine(),
            None,
            None,
            random_windows(300),
            documents=DOCUMENTS,
            dtype="float32",
            progress=Silent(),
        )


def test_the_tolerance_follows_the_scale() -> None:
    assert tolerance("float32", 20) == 1e-3
    assert tolerance("float32", 1000) == pytest.approx(1e-2)
    assert tolerance("float16", 20) == pytest.approx(1.0)


def test_rounded_activations_are_the_measure_of_what_rounds_them() -> None:
    shipped, rounded = FakeModel(), FakeModel(noise=0.05)
    result = report(FakeEngine(FakeModel(noise=0.06)), None, shipped, rounded=rounded)
    assert list(result) == ["text", "compiler", "activations", "paths"]
    figures = result["activations"]
    assert 0.04 < figures["max_logit_error"] <= 0.05
    assert figures["positions"] == 130
    for section in ("compiler", "paths"):
        limit = 1e-3 + 3 * figures["max_logit_error"]
        assert result[section]["tolerance"] == pytest.approx(limit, rel=1e-5)
    check_agreement(result)
    with pytest.raises(VerificationError, match=r"more than the 0\.1[45].* that rounding explains"):
        check_agreement(report(FakeEngine(FakeModel(seed=1)), None, shipped, rounded=rounded))
    # No single logit is further off than rounding explains, but too many are.
    coarse = report(FakeEngine(FakeModel(noise=0.12)), None, shipped, rounded=rounded)
    assert coarse["compiler"]["max_logit_error"] < coarse["compiler"]["tolerance"]
    with pytest.raises(
        VerificationError, match=r"diverge .* where the same rounding of activations"
    ):
        check_agreement(coarse)


def test_rounded_activations_are_measured_where_the_artifact_ran() -> None:
    extent = Extent(tokens=50, path_tokens=8)
    result = report(shipped=FakeModel(), extent=extent, rounded=FakeModel(noise=0.05))
    assert result["compiler"]["positions"] == result["activations"]["positions"] == 50
    progress, models = Counting(), (FakeModel(), FakeModel(), FakeModel(noise=0.05))
    alone = verify(
        None,
        *models[:2],
        WINDOWS,
        documents=DOCUMENTS,
        dtype="float32",
        progress=progress,
        rounds=True,
        roundings={"activations": models[2]},
    )
    assert alone["activations"]["positions"] == 130


def test_rounded_activations_without_a_measure() -> None:
    assert tolerance("float16", 20, None) == 5.0
    assert tolerance("float16", 20, 0.5) == 2.5
    result = verify(
        FakeEngine(),
        None,
        None,
        WINDOWS,
        documents=DOCUMENTS,
        dtype="float32",
        progress=Silent(),
        rounds=True,
    )
    scale = result["paths"]["logit_scale"]
    assert result["paths"]["tolerance"] == pytest.approx(scale / 4, rel=1e-5)


def test_limits_apply_to_all_of_the_text() -> None:
    figures = {"kl": 0.5, "top1": 1.0, "perplexity_ratio": 1.0}
    part = {"text": {"tokens": 130, "artifact_tokens": 50}, "total": figures}
    whole = {"text": {"tokens": 130, "artifact_tokens": 130}, "total": figures}
    fine = {**figures, "kl": 0.01}
    assert gates({**part, "quantizer": fine}, Quality(max_kl=0.1)) == []
    assert len(gates({**whole, "quantizer": fine}, Quality(max_kl=0.1))) == 1
    assert len(gates(part, Quality(max_kl=0.1))) == 1


def test_what_rounding_loses_is_printed() -> None:
    figures = {"kl": 1.5e-4, "max_logit_error": 0.25}
    compiler = {"kl": 1.2e-4, "max_logit_error": 0.2, "tolerance": 0.751}
    lines = dict(quality_lines({"activations": figures, "compiler": compiler}))
    assert lines["compiler"] == "max |Δlogit| 2.0e-01 (limit 0.8)"
    said = "nats of activations in 8 bits, in PyTorch 1.5e-04 and max |Δlogit| 2.5e-01"
    assert lines["rounding"] == f"KL 1.2e-04 {said}"
    assert dict(quality_lines({"activations": figures})) == {"rounding": f"KL 1.5e-04 {said}"}


def test_all_that_is_rounded_is_the_measure() -> None:
    """And what the cache loses alone stands beside it."""
    shipped = FakeModel()
    roundings = {"kv_cache": FakeModel(noise=0.02), "rounding": FakeModel(noise=0.05)}
    result = verify(
        FakeEngine(FakeModel(noise=0.06)),
        None,
        shipped,
        WINDOWS,
        documents=DOCUMENTS,
        dtype="float32",
        progress=Silent(),
        rounds=True,
        roundings=roundings,
    )
    assert list(result) == ["text", "compiler", "kv_cache", "rounding", "paths"]
    assert result["kv_cache"]["max_logit_error"] <= 0.02 < result["rounding"]["max_logit_error"]
    limit = 1e-3 + 3 * result["rounding"]["max_logit_error"]
    assert result["compiler"]["tolerance"] == pytest.approx(limit, rel=1e-5)
    check_agreement(result)
    del result["rounding"]
    with pytest.raises(VerificationError, match="diverge"):
        check_agreement(result)


def test_what_a_rounded_cache_loses_is_printed() -> None:
    cache = {"kl": 3.4e-6, "max_logit_error": 0.01, "perplexity_ratio": 1.00012}
    head = {"verification": {"ran": True, "kv_cache_dtype": "int8"}, "kv_cache": cache}
    assert dict(quality_lines(head)) == {
        "rounding": "KL 3.4e-06 nats of a KV cache in int8, in PyTorch 3.4e-06 and max |Δlogit| 1.0e-02",
        "KV cache": (
            "in int8, alone in PyTorch: KL 3.4e-06 nats, perplexity ratio 1.00012,"
            " max |Δlogit| 1.0e-02"
        ),
    }
    both = {"kl": 1.5e-4, "max_logit_error": 0.25}
    lines = dict(quality_lines({**head, "rounding": both}))
    assert lines["rounding"].startswith(
        "KL 1.5e-04 nats of activations in 8 bits and a KV cache in int8"
    )
    assert lines["KV cache"].startswith("in int8")
