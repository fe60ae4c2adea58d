"""A kernel that is broken on purpose, in the text that ships, is caught by verification and named."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pytest

from edgec.errors import VerificationError
from edgec.ir.load import load_tvm
from edgec.libraries.open import open_library
from edgec.standins.faults import KernelFault
from edgec.target import load_target
from edgec.verification.kernel_references import References
from edgec.verification.kernels import check_kernels
from kernels.broken import Edit, broken_module, kernel_named, with_module
from numerics.tiny_models import library_of, run_stages, save_random_model
from standin_tools import needs

load_tvm()

from edgec.emitters.cuda_binary import DeviceBinary  # noqa: E402
from edgec.emitters.cuda_record import NAME, CudaRecord  # noqa: E402
from edgec.emitters.kernel_code import text_file  # noqa: E402

if TYPE_CHECKING:
    from pathlib import Path

    from edgec.runtime.engine import Engine
    from edgec.standins.device.hosting import Observer
    from edgec.target import Target
    from edgec.verification.built import BuiltLibrary

pytestmark = [
    pytest.mark.slow,
    *(needs(name) for name in ("clang++", "cxx", "lld", "qemu-aarch64", "aarch64-linux-gnu-g++")),
]

TARGETS = {"opencl": "android-adreno", "metal": "ios-metal", "cuda": "cuda"}
VOCABULARY = 256
TOKENS = [int(token) for token in np.random.default_rng(0).integers(0, VOCABULARY, 40)]


@dataclass(frozen=True)
class Case:
    """A library, and the references of its kernels, which are compiled once."""

    library: BuiltLibrary
    references: References

    def at(self, path: Path) -> Case:
        """The case with another file as its library."""
        return replace(self, library=replace(self.library, path=path))

    def check(self) -> dict[str, dict[str, int]]:
        """What the verify stage does with every kernel."""

        def open_checked(observer: Observer) -> Engine:
            return self.library.open(len(TOKENS), checked=True, observer=observer)

        return check_kernels(open_checked, self.references, self.library.kernels, TOKENS)


Cases: TypeAlias = Callable[[str], Case]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> Cases:
    """Gives the library of a kind of kernels. All are of one model."""
    from transformers import LlamaConfig  # noqa: PLC0415 - only these tests need it

    root = tmp_path_factory.mktemp("tiny")
    # Layers of equal sizes share their kernels.
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        vocab_size=VOCABULARY,
    )
    save_random_model(config, root / "model", seed=0)
    shared: dict[str, Path] = {}

    @functools.cache
    def case(kind: str) -> Case:
        target = _with_text(load_target(TARGETS[kind]))
        outputs = run_stages(root / "model", root / kind, target, scheme="q4f16_1", shared=shared)
        shared.update(outputs)
        library = library_of(outputs, target)
        return Case(library, References(library.references))

    return case


def _with_text(target: Target) -> Target:
    """The target whose library holds its kernels as text, and is there in one form."""
    update = {"cuda_architectures": (), "forms": target.library.forms[:1]}
    return target.model_copy(update={"library": target.library.model_copy(update=update)})


# Linear layers have forms for many rows, for a few, and for one.
MANY, FEW, ONE = "gemm_q4_128x64_kernel_2", "gemm_q4_128x64_kernel_1", "gemv_q4_128x64_kernel"
DECODE = "batch_decode_paged_kv_kernel"
NORM = "rms_norm_64_kernel"
SOFTMAX = "softmax_partials_kernel"

_BARRIER = "|".join(
    map(
        re.escape,
        (
            "barrier(CLK_LOCAL_MEM_FENCE);",
            "threadgroup_barrier(mem_flags::mem_threadgroup);",
            "__syncthreads();",
        ),
    )
)
_ROWS = r"< (arg\.rows\[0\]|rows)\)"
_PAST = r"(reads|writes) \d+ bytes at byte \d+ of argument \d+, which (has|ends after) \d+ bytes"
_RACE = r"of the same work-group: a barrier is missing between the (read and the write|write and the read)"
_NUMBERS = r"doesn't compute what it should: \S+ instead of \S+ at \[\d+, .*\d+ elements differ"


@dataclass(frozen=True)
class Mutation:
    """An edit, and what verification has to say of it.

    Attributes:
        edit: the change; by kind of kernels where their texts differ.
        says: in the words of a regular expression.
        of: what it has to name; None for the kernel, or the function that launches it.
    """

    edit: Edit | dict[str, Edit]
    says: str
    of: str | None = None


def _barrier(kernel: str, number: int) -> Edit:
    return Edit(kernel, rf"(?:{_BARRIER})", "", number=number, of=None)


def _swap(kernel: str, first: str, second: str) -> Edit:
    """Two parameters of one type in each other's place."""
    find = rf"\b({first}_ptr)\b(.*?)\b({second}_ptr)\b(?=[^;]*?\{{)"
    return Edit(kernel, find, r"\3\2\1")


def _gpu(opencl: Edit, others: Edit) -> dict[str, Edit]:
    return {"opencl": opencl, "metal": others, "cuda": others}


_LANE = (r"(shfl_down_sync|simd_shuffle_down)(\([^;]*?), 4(, 32)?\);", r"\1\2, 3\3);")

MUTATIONS: dict[str, Mutation] = {
    # Of the guards in OpenCL, the second is that of odd rows; others have one for all.
    "gemm, a row too many": Mutation(
        _gpu(
            Edit(MANY, _ROWS, r"<= \1)", number=1, of=None), Edit(MANY, _ROWS, r"<= \1)", of=None)
        ),
        _PAST,
    ),
    # Without matrix units, many rows share nothing.
    "gemm, a missing barrier": Mutation(_gpu(_barrier(FEW, 1), _barrier(MANY, 1)), _RACE),
    "gemm, swapped buffers": Mutation(_swap(MANY, "scales", "x"), _PAST),
    "gemv, an index too high": Mutation(
        Edit(ONE, r"round_ptr(\[| \+ )", r"round_ptr\1 1 + "), _PAST
    ),
    # Sums go through local memory, in CUDA through shuffles; there the activations are shared.
    "gemv, a missing barrier": Mutation(
        {"opencl": _barrier(ONE, 1), "metal": _barrier(ONE, 1), "cuda": _barrier(ONE, 0)}, _RACE
    ),
    "gemv, a wrong lane": Mutation(
        {"metal": Edit(FEW, *_LANE), "cuda": Edit(ONE, *_LANE)}, _NUMBERS
    ),
    "gemv, swapped buffers": Mutation(_swap(ONE, "scales", "x"), _PAST),
    "decode, a position too many": Mutation(Edit(DECODE, r"\+ j\) < kv", "+ j) <= kv"), _NUMBERS),
    "decode, a missing barrier": Mutation(Edit(DECODE, rf"(?:{_BARRIER})(?=\s+st_m)", ""), _RACE),
    "decode, swapped buffers": Mutation(_swap(DECODE, "Q", "pages"), _PAST),
    "norm, a step too few": Mutation(
        Edit(NORM, r"(\w+ = 0; \w+ < )3;", r"\g<1>2;", number=1, of=2), _NUMBERS
    ),
    "norm, a missing barrier": Mutation(_barrier(NORM, 0), _RACE),
    "norm, swapped buffers": Mutation(_swap(NORM, "weight", "x"), _PAST),
    "softmax, an item too many": Mutation(Edit(SOFTMAX, r"< 64\)", "<= 64)", of=2), _PAST),
    "softmax, a missing barrier": Mutation(_barrier(SOFTMAX, 0), _RACE),
    "softmax, swapped buffers": Mutation(_swap(SOFTMAX, "partials", "temperature"), _PAST),
    # The last of four such loops sums; a wrong maximum, of the first two, changes no probability. What
    # is wrong with logits is said of the function that engines call.
    "softmax, a step too few": Mutation(
        Edit(SOFTMAX, r"(\w+ = 0; \w+ < )15;", r"\g<1>14;", number=3, of=4),
        r"gives an error of \S+ of the scale",
        of="softmax_with_temperature",
    ),
}


def _edit(name: str, kind: str) -> Edit | None:
    edit = MUTATIONS[name].edit
    return edit.get(kind) if isinstance(edit, dict) else edit


# Metal's text has the same kernels and barriers; CUDA's is executed on every change elsewhere.
NIGHTLY = {"cuda"}


def of_kind(kind: str, *arguments: str) -> Any:
    """A case with kernels of a kind."""
    marks = [pytest.mark.nightly] if kind in NIGHTLY else []
    return pytest.param(*arguments, kind, marks=marks, id="-".join((*arguments, kind)))


@pytest.mark.parametrize("kind", [of_kind(kind) for kind in TARGETS])
def test_the_kernels_are_right(kind: str, cases: Cases) -> None:
    found = cases(kind).check()
    ran = found["checked"].keys() | found["unchecked"].keys()
    assert {"gemm_q4_128x64", "gemv_q4_128x64", "batch_decode_paged_kv", "rms_norm_64"} <= ran
    assert "softmax_partials" in ran


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        of_kind(kind, name)
        for name in MUTATIONS
        for kind in TARGETS
        if _edit(name, kind) is not None
    ],
)
def test_a_broken_kernel_is_named(name: str, kind: str, cases: Cases, tmp_path: Path) -> None:
    case, edit, mutation = cases(kind), _edit(name, kind), MUTATIONS[name]
    assert edit is not None
    library = open_library(case.library.path)
    kernel = kernel_named(library, edit.kernel)
    broken = tmp_path / library.path.name
    with_module(library, broken_module(library, kernel, edit), broken)
    fault = KernelFault if mutation.says in {_PAST, _RACE} else VerificationError
    with pytest.raises(fault, match=mutation.says) as caught:
        case.at(broken).check()
    print(f"{kind}: {name}: {caught.value}")
    function = re.sub(r"_kernel(_\d+)?$", "", kernel.removeprefix(library.prefix))
    named = f"kernel {kernel}" if fault is KernelFault else mutation.of or function
    assert str(caught.value).startswith(f"{named}: ")


@pytest.mark.nightly
def test_text_beside_machine_code_has_to_be_its_own(cases: Cases, tmp_path: Path) -> None:
    """The emulator executes ``kernels.cuda``; a record ties that to what ships."""
    case = cases("cuda")
    library = open_library(case.library.path)
    right = library.device
    assert right is not None
    edit = _edit("norm, a step too few", "cuda")
    assert edit is not None
    wrong = broken_module(library, kernel_named(library, edit.kernel), edit)
    # Nothing here executes it. The format's name is longer by one letter.
    code = bytes(len(right.code[""]) - 1)
    shipped = replace(right, format="cubin", code={"": code})
    binary = DeviceBinary("cubin", code, ("sm_80",), {}, ())
    path = tmp_path / library.path.name
    with_module(library, shipped, path)
    text, record = text_file(tmp_path, "cuda"), tmp_path / NAME
    with pytest.raises(VerificationError, match="their text can't be read"):
        case.at(path).check()
    record.write_text(CudaRecord.of(right.code[""], binary).to_text())
    text.write_bytes(wrong.to_bytes())
    with pytest.raises(VerificationError, match="text is not the one that the machine code was"):
        case.at(path).check()
    text.write_bytes(right.to_bytes())
    case.at(path).check()
    # A record that lies lets the text through, to the check of its kernels.
    record.write_text(CudaRecord.of(wrong.code[""], binary).to_text())
    text.write_bytes(wrong.to_bytes())
    with pytest.raises(VerificationError, match=_NUMBERS):
        case.at(path).check()
