"""Every target that isn't this machine: built, verified on its stand-in, and of one voice with x86.

A small random model is built for all but two of them, the shipped one for these, a GPU and a CPU of
phones and boards; the benchmark of device targets builds the shipped one for each.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
import pytest

from caches import cache_in
from edgec.artifacts.artifact import Artifact, open_artifact
from edgec.emitters.kernel_code import text_file
from edgec.errors import VerificationError
from edgec.runtime.tokenizer import Tokenizer
from edgec.target import list_targets, load_target
from edgec.verification import repeat
from endtoend.command import edgec
from endtoend.small_model import SMALL, write_small_model
from on_every_change import nightly_but
from standin_tools import needs

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from edgec.runtime.engine import Engine

    Logits: TypeAlias = np.ndarray[Any, np.dtype[np.float32]]

pytestmark = [
    pytest.mark.slow,
    *(needs(name) for name in ("clang++", "cxx", "lld", "qemu-aarch64", "aarch64-linux-gnu-g++")),
]

SHIPPED = "tinypy"
HOST = "host"
# The code of webgpu with other limits, the variant that the tests of browsers run whole, and what
# those of the runtime for CUDA build, run and compare with the emulator.
ELSEWHERE = {"webgpu-mobile", "webgpu-f32", "cuda"}
DEVICES = [
    name
    for name in list_targets()
    if load_target(name).standin != "native" and name not in ELSEWHERE
]
# What code for other NVIDIA GPUs says of itself, that of Jetson Orin says too, and compiling it
# again takes a quarter of a minute.
COMPILED_ONCE = {"jetson-thor"}
WORKERS = 2
LETTERS = 64  # tokens of greedy text

# On so few tokens, figures of quality say little.
FEW = {
    "quantization.scheme": "q4f16_1",
    "quality.tokens": "32",
    "quality.window": "32",
    "quality.max_kl": "1",
    "quality.min_top1": "0.5",
    "quality.max_perplexity_ratio": "2",
}


class Case(NamedTuple):
    """A model for a target."""

    model: str
    target: str

    def __str__(self) -> str:
        return f"{self.model}-{self.target}"


LARGER = ("android-adreno", "linux-arm64")
CASES = [
    *(Case(SMALL, target) for target in DEVICES if target not in LARGER),
    *(Case(SHIPPED, target) for target in LARGER),
]
# What is the same for a target beside them: Adreno's kernels, and Arm code for machines with Linux.
NIGHTLY = {"android-mali", "android-cpu", "android-cpu-i8mm", "linux-arm64-i8mm"}
# Stand-ins that the command runs as the build does; it runs Apple's and browsers' on every change, and Adreno's
# where devices' libraries are tested.
AGAIN = NIGHTLY | {"android-adreno", "jetson-orin", "linux-arm64"}


def each(nightly: set[str]) -> pytest.MarkDecorator:
    """All cases, those of some targets at night only."""
    return pytest.mark.parametrize(
        "case", nightly_but(lambda case: case.target not in nightly, CASES)
    )


EVERY = each(NIGHTLY)
Built: TypeAlias = Callable[[Case], Artifact]


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the small model and its recipe."""
    folder = tmp_path_factory.mktemp("work")
    write_small_model(folder)
    return folder


@pytest.fixture(scope="module")
def built(work: Path, request: pytest.FixtureRequest) -> Iterator[Built]:
    """Gives the artifact of a case. All that are asked for are built two at a time."""
    wanted = {
        item.callspec.params["case"]
        for item in request.session.items
        if item.path == request.path and "case" in getattr(item, "callspec", _NONE).params
    }
    # In the order of the tests; first what they are all compared with.
    hosts = [Case(model, HOST) for model in (SMALL, SHIPPED)]
    cases = [case for case in [*hosts, *CASES] if case in wanted or case.target == HOST]
    with ThreadPoolExecutor(WORKERS) as pool:
        futures: dict[Case, Future[Artifact]] = {
            case: pool.submit(_build, work, case)
            for case in cases
            if any(other.model == case.model for other in wanted)
        }
        yield lambda case: futures[case].result()
        pool.shutdown(cancel_futures=True)


class _NONE:
    params: dict[str, Any] = {}  # noqa: RUF012 - stands for a test without parameters


def _build(work: Path, case: Case) -> Artifact:
    recipe = f"{SMALL}.yaml" if case.model == SMALL else SHIPPED
    few = () if case.model == SMALL else (f"{name}={value}" for name, value in FEW.items())
    options = [part for setting in few for part in ("-s", setting)]
    out = work / "artifacts" / case.target
    edgec(work, "build", recipe, "--target", case.target, "--out", str(out), *options)
    (folder,) = (out / case.model).iterdir()
    return open_artifact(folder)


@EVERY
def test_it_is_built_and_verified(case: Case, built: Built) -> None:
    report = built(case).report
    assert report["verification"] == {"standin": load_target(case.target).standin, "ran": True}
    assert report["text"]["artifact_tokens"] >= 32
    assert report["compiler"]["max_logit_error"] <= report["compiler"]["tolerance"]
    checked = report["kernels"]["checked"]
    kinds = ("gemm_", "gemv_", "batch_decode", "batch_prefill", "rms_norm", "take")
    assert {kind for kind in kinds if any(name.startswith(kind) for name in checked)} == set(kinds)


@each(AGAIN)
def test_verify_needs_the_artifact_alone(case: Case, built: Built, tmp_path: Path) -> None:
    """Not the recipe, not what the build left in the cache, not torch."""
    copy = tmp_path / "copy"
    shutil.copytree(built(case).folder, copy)
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "torch.py").write_text("raise ImportError('torch is hidden')\n")
    path = os.pathsep.join(
        [str(tmp_path / "hidden"), *filter(None, [os.environ.get("PYTHONPATH")])]
    )
    options = ["--no-kernels"] if case.target in COMPILED_ONCE else []
    elsewhere = {"PYTHONPATH": path, "EDGEC_CACHE": str(cache_in(tmp_path))}
    verified = json.loads(edgec(tmp_path, "verify", str(copy), "--json", *options, **elsewhere))
    assert verified["target"] == case.target
    # The golden outputs are what the same code computed on the same stand-in, in one of several ways; where
    # activations are rounded, the ways differ by as much as one of them from the reference.
    golden = verified["golden"]
    rounds = "activations" in built(case).report
    assert max(golden["artifact"].values()) <= golden["tolerance"] / (3 if rounds else 10)
    if not options:
        assert (
            verified["kernels"]["checked"].keys() == built(case).report["kernels"]["checked"].keys()
        )


# Of the largest logit. Hidden states are rounded to half precision (2^-11) some ten times per
# layer, and the builds find errors of less than 2^-10; two libraries may err to opposite sides, and
# a gap has two ends.
NEAR_TIE = 2**-8


@EVERY
def test_greedy_text_is_that_of_x86(case: Case, built: Built) -> None:
    """Where another token is likelier, it is so by less than rounding explains."""
    here, there = built(Case(case.model, HOST)), built(case)
    prompt = Tokenizer(here.model).encode("class Config:\n    def __init__(self")
    text, expected = _write(_open(here), prompt)
    _, got = _write(_open(there), prompt, follow=text)
    differences = []
    for place, (right, mine) in enumerate(zip(expected, got, strict=True)):
        if int(mine.argmax()) != text[place]:
            gap = float(right[text[place]] - right[mine.argmax()])
            assert gap <= NEAR_TIE * float(np.abs(right).max()), f"token {place}: gap {gap:.3g}"
            differences.append(f"token {place}, a gap of {gap:.2g}")
    error = max(float(np.abs(a - b).max()) for a, b in zip(expected, got, strict=True))
    print(f"{case}: max |Δlogit| {error:.2g}; {', '.join(differences) or 'the same text'}")
    # Ties are rare: a library that is wrong would have more of them.
    assert len(differences) <= LETTERS // 16


def _open(artifact: Artifact) -> Engine:
    return repeat._built(artifact, None).open(2 * LETTERS, sequences=1)


def _write(
    engine: Engine, prompt: Sequence[int], follow: Sequence[int] = ()
) -> tuple[list[int], list[Logits]]:
    """Greedy text, and the logits of each of its tokens; those of another text, if there is one."""
    engine.add(0)
    steps = [engine.prefill(0, list(prompt))]
    text = [follow[0] if follow else int(steps[0].argmax())]
    while len(text) < LETTERS:
        steps.append(engine.decode(0, text[-1]))
        text.append(follow[len(text)] if follow else int(steps[-1].argmax()))
    engine.remove(0)
    return text, steps


@pytest.mark.parametrize("case", [Case(SMALL, "jetson-orin")], ids=str)
def test_other_text_beside_machine_code_is_refused(
    case: Case, built: Built, tmp_path: Path
) -> None:
    """The stand-in executes ``kernels.cuda``, the device the machine code that was made from it."""
    copy = tmp_path / "copy"
    shutil.copytree(built(case).folder, copy)
    artifact = open_artifact(copy)
    text = text_file(artifact.library.parent, "cuda")
    before = text.read_bytes()
    after = before.replace(b"__syncthreads();", b"               ;", 1)
    assert after != before
    text.write_bytes(after)
    edgec(tmp_path, "verify", str(copy), code=5)
    with pytest.raises(VerificationError, match="text is not the one that the machine code was"):
        _open(artifact)
