"""CUDA text becomes machine code, and the record of it can be proven, without a GPU."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from edgec.emitters import cuda_binary, cuda_worker
from edgec.emitters.cuda_binary import DeviceBinary, compile_cuda, same_code
from edgec.emitters.cuda_cubin import kernel_facts
from edgec.emitters.cuda_headers import STANDARD_HEADERS
from edgec.emitters.cuda_record import CudaRecord
from edgec.emitters.cuda_toolkit import CudaToolkit, find_toolkit
from edgec.errors import BuildError, ToolchainError, VerificationError
from edgec.ir.load import load_tvm
from edgec.libraries.device import DeviceModule, KernelInfo
from edgec.progress import Silent

if TYPE_CHECKING:
    from pathlib import Path

SILENT = Silent()
FATBIN = bytes.fromhex("50ed55ba")
# One kernel with a reduction through shuffles, one whose array has no room in registers, one on
# tensor cores.
KERNELS = """
extern "C" __global__ void __launch_bounds__(64) reduce(half* __restrict__ x, float* y) {
  __shared__ float parts[2];
  float value = (float)x[threadIdx.x];
  for (int offset = 16; offset; offset >>= 1) value += __shfl_down_sync(~0u, value, offset, 32);
  if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = value;
  __syncthreads();
  if (threadIdx.x == 0) y[blockIdx.x] = max(parts[0] + parts[1], -CUDART_INF_F);
}
extern "C" __global__ void __launch_bounds__(1024) spill(float* __restrict__ x, int n) {
  float held[96];
  #pragma unroll
  for (int i = 0; i < 96; ++i) held[i] = x[i * 1024 + threadIdx.x];
  for (int step = 0; step < n; ++step) {
    #pragma unroll
    for (int i = 0; i < 96; ++i) held[i] = held[i] * held[(i * 7 + 1) % 96] + step;
  }
  #pragma unroll
  for (int i = 0; i < 96; ++i) x[i * 1024 + threadIdx.x] = held[i];
}
extern "C" __global__ void __launch_bounds__(32) tensor(half* a, half* b, half* c) {
  nvcuda::wmma::fragment<nvcuda::wmma::matrix_a, 16, 16, 16, half, nvcuda::wmma::row_major> x;
  nvcuda::wmma::fragment<nvcuda::wmma::matrix_b, 16, 16, 16, half, nvcuda::wmma::col_major> y;
  nvcuda::wmma::fragment<nvcuda::wmma::accumulator, 16, 16, 16, half> z;
  nvcuda::wmma::fill_fragment(z, 0.0f);
  nvcuda::wmma::load_matrix_sync(x, a, 16);
  nvcuda::wmma::load_matrix_sync(y, b, 16);
  nvcuda::wmma::mma_sync(z, x, y, z);
  nvcuda::wmma::store_matrix_sync(c, z, 16, nvcuda::wmma::mem_row_major);
}
"""
SIMPLE = 'extern "C" __global__ void simple(float* x) { x[threadIdx.x] += 1.0f; }\n'
NEWEST = {"12": "sm_87", "13": "sm_110a"}


def toolkit(version: str) -> CudaToolkit:
    """The toolkit of a version, or skip the test by its name; where CI is set that is a failure."""
    try:
        return find_toolkit(version)
    except ToolchainError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module", params=sorted(NEWEST))
def version(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    toolkit(name)
    return name


@pytest.fixture(scope="module")
def source() -> str:
    """TVM's own preamble with all that Orin's toolkit has (no 8-bit floats), and kernels."""
    load_tvm()
    import tvm  # noqa: PLC0415
    from tvm.backend import cuda  # noqa: F401, PLC0415 - registers the generator

    tags = ["fp16", "bf16", "int8", "math_constants", "mma", "warp_shuffle"]
    preamble = tvm.get_global_func("tirx.intrinsics.cuda.header_generator")(
        [*tags, "cast_smem_ptr_to_int"]
    )
    return str(preamble) + KERNELS


@pytest.fixture(scope="module")
def binary(source: str, version: str) -> DeviceBinary:
    return compile_cuda(source, (NEWEST[version],), version, SILENT)


def test_one_architecture_gives_a_cubin(binary: DeviceBinary, version: str) -> None:
    assert (binary.format, binary.architectures) == ("cubin", (NEWEST[version],))
    assert binary.code.startswith(b"\x7fELF")
    assert set(binary.parts) == {"nvrtc", "headers", "crt"}


def test_facts_of_kernels_are_told(binary: DeviceBinary) -> None:
    facts = {kernel.name: kernel for kernel in binary.kernels}
    assert set(facts) == {"reduce", "spill", "tensor"}
    assert facts["reduce"].max_threads == 64
    # Two floats; newer compilers leave room after the bytes that a barrier takes.
    assert 8 <= facts["reduce"].shared_bytes <= 64
    assert facts["reduce"].spill_bytes == facts["reduce"].stack_bytes == 0
    # 1024 threads share 65536 registers: at most 64 for each, which 96 values don't fit in.
    assert facts["spill"].registers <= 64
    assert facts["spill"].spill_bytes > 0
    assert facts["spill"].stack_bytes > 0


def test_the_file_and_ptxas_agree(source: str, version: str) -> None:
    """Two independent accounts of the same kernels."""
    found = toolkit(version)
    headers = {**STANDARD_HEADERS, **cuda_binary._tensor_core_headers(source, found)}
    one = cuda_binary._compile(source, NEWEST[version], found, headers)
    facts = {k.name: k for k in kernel_facts(one.cubin, one.architecture, one.log)}
    told = re.findall(
        r"entry function '(\w+)'.*?(\d+) bytes stack frame.*?Used (\d+) registers([^\n]*)",
        one.log,
        re.DOTALL,
    )
    assert {name for name, *_ in told} == set(facts)
    for name, stack, registers, rest in told:
        shared = re.search(r"(\d+) bytes smem", rest)
        assert facts[name].stack_bytes == int(stack)
        assert facts[name].registers == int(registers)
        assert facts[name].shared_bytes == (int(shared[1]) if shared else 0)


def test_bytes_depend_on_nothing_around(
    binary: DeviceBinary,
    source: str,
    version: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("NVCC_APPEND_FLAGS", "NVRTC_APPEND_FLAGS", "CUDA_CACHE_PATH"):
        monkeypatch.setenv(name, "-G")
    assert same_code(source, binary.code, binary.architectures, version, SILENT)
    found = toolkit(version)
    for place in (tmp_path, found.include, found.nvrtc.parent):
        assert str(place).encode() not in binary.code


def test_other_text_is_not_the_same_code(binary: DeviceBinary, source: str, version: str) -> None:
    other = source.replace("-CUDART_INF_F", "1.0f")
    assert not same_code(other, binary.code, binary.architectures, version, SILENT)


def test_headers_of_the_standard_library_mean_what_they_say(version: str) -> None:
    includes = "#include <cuda/std/cstdint>\n#include <cuda/std/type_traits>\n"
    checks = """
using namespace cuda::std;
template <class T, class = void> struct counts { static constexpr bool yes = false; };
template <class T> struct counts<T, typename enable_if<is_integral<T>::value>::type> {
  static constexpr bool yes = true;
};
static_assert(sizeof(int8_t) == 1 && sizeof(uint16_t) == 2 && sizeof(int32_t) == 4);
static_assert(sizeof(uint64_t) == 8 && uint64_t(0) < uint64_t(-1) && int64_t(-1) < int64_t(0));
static_assert(is_same<int, int>::value && !is_same<int, unsigned>::value && is_same_v<int, int>);
static_assert(is_integral<const long>::value && is_integral<bool>::value);
static_assert(!is_integral<float>::value && !is_integral<int*>::value);
static_assert(is_floating_point<double>::value && !is_floating_point<int>::value);
static_assert(is_signed<int>::value && is_signed<float>::value && !is_signed<uint8_t>::value);
static_assert(is_unsigned<uint8_t>::value && !is_unsigned<int*>::value && !is_signed<int*>::value);
static_assert(is_same_v<conditional<true, int, float>::type, int>);
static_assert(is_same_v<conditional<false, int, float>::type, float>);
static_assert(counts<int>::yes && !counts<float>::yes);
"""
    compile_cuda(includes + checks + SIMPLE, (NEWEST[version],), version, SILENT)
    # What isn't used leaves no trace in the code.
    including = compile_cuda(includes + SIMPLE, (NEWEST[version],), version, SILENT)
    plain = compile_cuda(SIMPLE, (NEWEST[version],), version, SILENT)
    assert including.code == plain.code
    assert set(plain.parts) == {"nvrtc", "headers"}


def test_several_architectures_give_a_fat_binary_with_ptx_of_the_newest() -> None:
    toolkit("12")
    names = ("sm_90", "sm_80", "sm_89")
    fat = compile_cuda(SIMPLE, names, "12", SILENT)
    assert fat.format == "fatbin"
    assert fat.code.startswith(FATBIN)
    assert [kernel.architecture for kernel in fat.kernels] == list(names)
    for name in names:
        assert compile_cuda(SIMPLE, (name,), "12", SILENT).code in fat.code
    # PTX is compressed as soon as that makes it smaller, which this kernel's isn't.
    assert re.findall(rb"\.target (sm_\d+)", fat.code) in ([b"sm_90"], [])
    assert same_code(SIMPLE, fat.code, names, fat.parts["nvrtc"], SILENT)


def test_code_of_one_gpu_alone_has_no_ptx_for_later_ones() -> None:
    toolkit("13")
    fat = compile_cuda(SIMPLE, ("sm_87", "sm_110a"), "13", SILENT)
    later = compile_cuda(SIMPLE, ("sm_87", "sm_110"), "13", SILENT)
    assert len(later.code) > len(fat.code) + 100


def test_an_architecture_that_the_toolkit_does_not_know() -> None:
    toolkit("12")
    with pytest.raises(ToolchainError, match="does not know the architecture sm_110a"):
        compile_cuda(SIMPLE, ("sm_110a",), "12", SILENT)


def test_text_that_does_not_compile_is_shown(version: str) -> None:
    with pytest.raises(BuildError, match=r"kernels\.cu\(1\): error: .*\"wrong\" is undefined"):
        compile_cuda(SIMPLE.replace("1.0f", "wrong"), (NEWEST[version],), version, SILENT)


def test_a_compiler_that_crashes_is_an_error(
    version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "worker.py"
    program.write_text("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")
    monkeypatch.setattr(cuda_worker, "__file__", str(program))
    with pytest.raises(BuildError, match="was ended by SIGSEGV"):
        compile_cuda(SIMPLE, (NEWEST[version],), version, SILENT)


def test_missing_parts_are_named(monkeypatch: pytest.MonkeyPatch, source: str) -> None:
    bare = replace(toolkit("12"), crt=None, nvfatbin=None)
    monkeypatch.setattr(cuda_binary, "find_toolkit", lambda _: bare)
    with pytest.raises(ToolchainError, match="header of tensor cores"):
        compile_cuda(source, ("sm_87",), "12", SILENT)
    with pytest.raises(ToolchainError, match="nvFatbin"):
        compile_cuda(SIMPLE, ("sm_80", "sm_90"), "12", SILENT)
    assert compile_cuda(SIMPLE, ("sm_87",), "12", SILENT).format == "cubin"


def _modules() -> tuple[CudaRecord, DeviceModule, DeviceModule]:
    binary = compile_cuda(SIMPLE, ("sm_87",), "12", SILENT)
    kernels = {"simple": KernelInfo("simple", ("handle",), ("threadIdx.x",), (0,))}
    text = DeviceModule("cuda", "cuda", kernels, {"": SIMPLE.encode()})
    shipped = DeviceModule("cuda", binary.format, kernels, {"": binary.code})
    return CudaRecord.of(SIMPLE.encode(), binary), text, shipped


def test_a_record_is_proven() -> None:
    toolkit("12")
    record, text, shipped = _modules()
    assert CudaRecord.parse(record.to_text(), "record") == record
    record.prove(text, shipped, "model.so", SILENT)


def test_what_the_record_does_not_describe_is_refused() -> None:
    toolkit("12")
    record, text, shipped = _modules()
    other_text = replace(text, code={"": SIMPLE.replace("1.0f", "2.0f").encode()})
    other_code = replace(shipped, code={"": shipped.code[""] + b"\0"})
    renamed = replace(shipped, functions={"other": shipped.functions["simple"]})
    for pair, message in [
        ((other_text, shipped), "not the one that the machine code was compiled from"),
        ((text, other_code), "machine code is not the one"),
        ((text, renamed), "other signatures"),
        ((shipped, shipped), "has the format 'cubin'"),
        ((text, replace(shipped, format="fatbin")), "was recorded as a cubin"),
    ]:
        with pytest.raises(VerificationError, match=message):
            record.check(*pair, "model.so")


def test_a_record_that_lies_is_found_out() -> None:
    """Digests can be forged; what the text compiles to can't."""
    toolkit("12")
    record, text, shipped = _modules()
    source = SIMPLE.replace("1.0f", "2.0f").encode()
    forged = replace(record, text_sha256=hashlib.sha256(source).hexdigest())
    with pytest.raises(VerificationError, match="compiles to other machine code"):
        forged.prove(replace(text, code={"": source}), shipped, "model.so", SILENT)


def test_a_record_of_another_toolkit_names_it() -> None:
    toolkit("12")
    record, text, shipped = _modules()
    other = replace(record, parts={**record.parts, "headers": "12.0.1"})
    with pytest.raises(ToolchainError, match=r"nvidia-cuda-runtime-cu12==12\.0\.1"):
        other.prove(text, shipped, "model.so", SILENT)
    other = replace(record, parts={**record.parts, "nvrtc": "12.0.1"})
    with pytest.raises(ToolchainError, match=r"nvidia-cuda-nvrtc-cu12==12\.0\.1"):
        other.prove(text, shipped, "model.so", SILENT)


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"schema": "edgec.cuda/v0"}', '{"schema": "edgec.cuda/v1", "parts": []}'],
)
def test_damaged_records_are_refused(text: str) -> None:
    with pytest.raises(VerificationError, match="no record of machine code"):
        CudaRecord.parse(text, "kernels.json")
