"""A kernel that is broken on purpose, in the text that ships, is caught by verification and named."""

from __future__ import annotations

import functools
import os
import re
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from edgec.errors import EdgecError, VerificationError
from edgec.libraries.open import open_library
from edgec.standins.faults import KernelFault
from edgec.target import load_target
from edgec.verification.kernel_references import References
from edgec.verification.kernels import check_kernels
from kernels.broken import Edit, break_library, kernel_named
from numerics.tiny_models import library_of, run_stages, save_random_model
from standin_tools import needs

if TYPE_CHECKING:
    from collections.abc import Iterator
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
TOKENS = [int(token) for token in np.random.default_rng(0).integers(0, 256, 40)]


@dataclass(frozen=True)
class Case:
    """A library that is right, and the references of its kernels, compiled once."""

    library: BuiltLibrary
    references: References

    def check(self) -> None:
        """What the verify stage does with every kernel."""

        def open_checked(observer: Observer) -> Engine:
            return self.library.open(len(TOKENS), checked=True, observer=observer)

        check_kernels(open_checked, self.references, self.library.kernels, TOKENS)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    # Of its own where none is named: tests don't write into the user's cache.
    named = os.environ.get("EDGEC_CACHE")
    if not named:
        os.environ["EDGEC_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if not named:
        del os.environ["EDGEC_CACHE"]


@pytest.fixture(scope="module")
def cases(tmp_path_factory: pytest.TempPathFactory) -> functools._lru_cache_wrapper[Case]:
    """Gives the library of a kind of kernels; they share their weights."""
    from transformers import LlamaConfig  # noqa: PLC0415 - only these tests need it

    root = tmp_path_factory.mktemp("tiny")
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=64,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=32,
        vocab_size=256,
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
    """The target whose library holds its kernels as text, in one form."""
    library = target.library.model_copy(
        update={"cuda_architectures": (), "forms": target.library.forms[:1]}
    )
    return target.model_copy(update={"library": library})


def both(opencl: Edit, others: Edit) -> dict[str, Edit]:
    return {"opencl": opencl, "metal": others, "cuda": others}


BARRIER = r"(?:barrier\(CLK_LOCAL_MEM_FENCE\)|threadgroup_barrier\(mem_flags::mem_threadgroup\)|__syncthreads\(\));"
ROWS = r"< (arg\.rows\[0\]|rows)\)"
# Loads of the last rows' products, in the forms for many rows and for few.
MANY, FEW, ONE = "gemm_q4_128x64_kernel_2", "gemm_q4_128x64_kernel_1", "gemv_q4_128x64_kernel"
DECODE = "batch_decode_paged_kv_kernel"
NORM = "rms_norm_64_kernel"
SOFTMAX = "softmax_partials_kernel"


def _swap(first: str, second: str) -> tuple[str, str]:
    """Two parameters of one type in each other's place."""
    return rf"\b({first}_ptr)\b(.*?)\b({second}_ptr)\b([^;]*?\{{)", r"\3\2\1\4"


EDITS: dict[str, Edit | dict[str, Edit]] = {
    "gemm, a row too many": Edit(MANY, ROWS, r"<= \1)", of=None),
    "gemm, a missing barrier": both(
        Edit(FEW, BARRIER, "", number=1, of=None), Edit(MANY, BARRIER, "", number=1, of=None)
    ),
    "gemm, swapped buffers": Edit(MANY, *_swap("scales", "x")),
    "gemv, an index too high": Edit(ONE, r"round_ptr(\[| \+ )", r"round_ptr\1 1 + "),
    "gemv, a wrong partner": both(
        Edit(FEW, r"\+ 16\)\]\);", r"+ 15)]);"),
        Edit(FEW, r"(shfl_down_sync|simd_shuffle_down)(\([^;]*?) 16(, 32)?\);", r"\1\2 15\3);"),
    ),
    "gemv, swapped buffers": Edit(FEW, *_swap("scales", "x")),
    "decode, a position too many": Edit(DECODE, r"\+ j\) < kv", "+ j) <= kv"),
    "decode, a missing barrier": Edit(DECODE, BARRIER + r"(\s+st_m)", r"\1"),
    "decode, swapped buffers": Edit(DECODE, *_swap("page_table_indptr", "page_table_values")),
    "norm, a step too few": Edit(NORM, r"(\w+ = 0; \w+ < )4;", r"\g<1>3;"),
    "norm, a missing barrier": Edit(NORM, BARRIER, "", of=None),
    "norm, swapped buffers": Edit(NORM, *_swap("weight", "x")),
    "softmax, an item too many": Edit(SOFTMAX, r"< 64\)", "<= 64)", of=None),
    "softmax, a missing barrier": Edit(SOFTMAX, BARRIER, "", of=None),
    "softmax, swapped buffers": Edit(SOFTMAX, *_swap("partials", "temperature")),
}


@pytest.mark.parametrize("kind", TARGETS)
def test_the_kernels_are_right(kind: str, cases: functools._lru_cache_wrapper[Case]) -> None:
    t = time.time()
    case = cases(kind)
    print("build", time.time() - t)
    t = time.time()
    case.check()
    print("check", time.time() - t)


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("name", EDITS)
def test_a_broken_kernel_is_named(
    name: str, kind: str, cases: functools._lru_cache_wrapper[Case], tmp_path: Path
) -> None:
    case = cases(kind)
    edit = EDITS[name]
    if isinstance(edit, dict):
        edit = edit[kind]
    library = open_library(case.library.path)
    kernel = kernel_named(library, edit.kernel)
    broken = tmp_path / library.path.name
    break_library(library, kernel, edit, broken)
    t = time.time()
    try:
        replace(case, library=replace(case.library, path=broken)).check()
    except EdgecError as error:
        print("RESULT", kind, name, round(time.time() - t, 2), type(error).__name__, error)
    else:
        print("RESULT", kind, name, round(time.time() - t, 2), "NOTHING")
