"""Arm's matmuls by products of bytes against numpy, and how they use the instructions there are."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pytest

from edgec.ir.load import load_tvm

load_tvm()

import tvm  # noqa: E402

from edgec.layouts import dot4  # noqa: E402
from edgec.layouts.mlc import SCALE, WEIGHT, ZERO  # noqa: E402
from edgec.passes.reference_kernels import reference_kernels  # noqa: E402
from edgec.scheduling.kernels.byte_dots import ByteDots  # noqa: E402
from edgec.scheduling.kernels.cpu_dot import linear_kernel  # noqa: E402
from edgec.scheduling.kernels.linear import LINEAR, Linear  # noqa: E402
from edgec.standins import toolbox  # noqa: E402
from edgec.target import load_target  # noqa: E402
from kernels.host_library import HandMade, Hosted  # noqa: E402
from kernels.test_cpu_dot import activations, as_quantized, quantized  # noqa: E402
from standin_tools import needs  # noqa: E402

if TYPE_CHECKING:
    from edgec.quantization.tensors import QuantizedTensor
    from edgec.scheduling.kernels.linear import LinearKernel

pytestmark = [pytest.mark.slow, needs("qemu-aarch64"), needs("aarch64-linux-gnu-g++")]

F32, F16 = "float32", "float16"
TARGETS = ("linux-arm64", "linux-arm64-i8mm")
# Both widths of codes, with and without zero points, whole and ragged tiles, one step and four to a group.
LAYERS = {
    "whole": Linear(32, 128, F32, F16, "uint32", 4, 32, F16, tiled=True),
    "ragged": Linear(37, 256, F16, F32, "uint32", 4, 128, F16, zeros=True, tiled=True),
    "bytes": Linear(23, 96, F32, F32, "uint32", 8, 32, F32, zeros=True, tiled=True),
}
# One, those that leave a register tile unfilled by each size there is, and several tiles.
ROWS = (1, 2, 3, 5, 8, 17, 33)


class Compiled(NamedTuple):
    """The kernels of all layers for a target."""

    kernels: dict[tuple[str, bool], LinearKernel]
    module: Any
    assembly: str
    hosted: Hosted

    def run(self, name: str, x: np.ndarray, tensor: QuantizedTensor) -> np.ndarray:
        """Quantize and multiply."""
        return self.all_of(name, x, tensor, self.hosted, self.hosted.tensor)[-1]

    def all_of(
        self, name: str, x: np.ndarray, tensor: QuantizedTensor, call: Any, new: Any
    ) -> list[np.ndarray]:
        """Quantized activations, scales, terms and results."""
        single, layer = len(x) == 1, LAYERS[name]
        preparation = self.kernels[name, single].preparation
        assert preparation is not None
        packed = dot4.pack(tensor)
        stored = [new(packed[part]) for part in (WEIGHT, SCALE, ZERO) if part in packed]
        prepared = [new(np.full(shape, 77, dtype)) for shape, dtype in preparation.outputs(len(x))]
        y = new(np.full((len(x), layer.n), np.nan, layer.y_dtype))
        call(_symbol("prepare", name, single), new(x), *prepared)
        call(_symbol("matmul", name, single), *prepared, *stored, y)
        return [item.numpy() for item in (*prepared, y)]


def _symbol(what: str, name: str, single: bool) -> str:
    return f"{what}_{name}_{'one' if single else 'many'}"


def _target(name: str) -> Any:
    return tvm.target.Target(dict(load_target(name).tvm))


@pytest.fixture(scope="module", params=TARGETS)
def compiled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    target = _target(request.param)
    dots = ByteDots.of(target)
    assert dots is not None
    kernels, functions = {}, {}
    for name, layer in LAYERS.items():
        for single in (True, False):
            kernel = kernels[name, single] = linear_kernel(layer, dots, single=single)
            assert kernel.preparation is not None
            functions[_symbol("prepare", name, single)] = kernel.preparation.function
            function = kernel.function.with_attr(LINEAR, layer.to_json())
            functions[_symbol("matmul", name, single)] = function
    module = tvm.IRModule(
        {name: item.with_attr("global_symbol", name) for name, item in functions.items()}
    )
    built = tvm.tirx.build(module, target)
    folder = tmp_path_factory.mktemp("library")
    built.write_to_file(str(folder / "kernels.o"), "o")
    path = folder / "kernels.so"
    linker = toolbox.cross_cxx("aarch64")
    subprocess.run([linker, "-shared", str(folder / "kernels.o"), "-o", str(path)], check=True)
    library = HandMade(path, "aarch64", "", tuple(functions))
    # An instruction that the target's processors lack is an error there.
    cpu = "max,sve=off" if dots.blocks else "cortex-a76"
    return Compiled(
        kernels, module, built.inspect_source("asm"), Hosted(library, "ext_dev", cpu=cpu)
    )


@pytest.mark.parametrize("name", LAYERS)
def test_matmul_equals_float64(compiled: Compiled, name: str) -> None:
    layer = LAYERS[name]
    tensor = quantized(layer)
    weights = tensor.dequantize().astype(np.float64)
    for rows in ROWS:
        x = activations(layer, rows)
        wanted = as_quantized(x, layer.group) @ weights.T
        # Sums within a group are exact. Each group adds three roundings to float32: of the sum's
        # product with a scale, of that with the other, of the sum over groups.
        magnitude = np.abs(as_quantized(x, layer.group)) @ np.abs(weights).T
        bound = (2 + layer.k // layer.group) * 2.0**-24 * magnitude + 1e-6
        if layer.y_dtype == F16:
            bound += 2.0**-11 * np.abs(wanted) + 2.0**-24
        assert (np.abs(compiled.run(name, x, tensor) - wanted) <= bound).all(), rows


def test_a_rows_results_do_not_depend_on_the_rows_beside_it(compiled: Compiled) -> None:
    """Nor on whether it shares registers with another row."""
    layer = LAYERS["ragged"]
    tensor, x = quantized(layer), activations(layer, 21)
    whole = compiled.run("ragged", x, tensor)
    for first, last in ((0, 1), (5, 6), (4, 7), (3, 16)):
        part = compiled.run("ragged", x[first:last], tensor)
        np.testing.assert_array_equal(part, whole[first:last])


def test_references_compute_what_the_kernels_do(compiled: Compiled) -> None:
    """Every word, scale and term of the activations exactly; places that no row has are left alone."""
    name = "whole"
    functions = {
        var: function for var, function in compiled.module.functions_items() if name in str(var)
    }
    meanings = reference_kernels(tvm.IRModule(functions))
    library = tvm.runtime.Executable(tvm.tirx.build(meanings, tvm.target.Target("llvm")))
    for rows in (1, 2, 7, 21):
        arguments = name, activations(LAYERS[name], rows), quantized(LAYERS[name])
        found = compiled.all_of(*arguments, compiled.hosted, compiled.hosted.tensor)
        wanted = compiled.all_of(
            *arguments, lambda name, *rest: library[name](*rest), tvm.runtime.tensor
        )
        for got, right in zip(found[:-1], wanted[:-1], strict=True):
            np.testing.assert_array_equal(got, right)
        # The results are halves.
        assert np.abs(found[-1] - wanted[-1]).max() <= 1e-3 * np.abs(wanted[-1]).max()


def test_the_inner_loop_neither_spills_nor_repeats(compiled: Compiled) -> None:
    """Of the largest register tile, in groups of more than one step."""
    loop = max(_inner_loops(compiled.assembly, "matmul_ragged_many"), key=_products)
    blocks = any("usmmla" in line for line in loop)
    # 8 rows of activations, 8 rows of the weights, 32 columns.
    assert _products(loop) == 8 * 8 * 32
    assert not [line for line in loop if "[sp" in line]
    count = len([line for line in loop if re.match("u?sdot|usmmla", line)])
    assert count == (64 if blocks else 128)
    # An activation stays where one load has put it with its neighbours.
    assert blocks or all(re.search(r"\.4b\[\d\]$", line) for line in loop if "sdot" in line)
    assert len(loop) <= (1.8 if blocks else 1.3) * count


def _products(loop: list[str]) -> int:
    """How many products of bytes a loop adds up."""
    return sum(32 * line.startswith("usmmla") + 16 * ("sdot" in line) for line in loop)


def _inner_loops(assembly: str, function: str) -> list[list[str]]:
    """Instructions between a label and a jump back to it, with no label in between.

    The body of a function's parallel loop is a function of its own, behind it.
    """
    start = assembly.index(f"\n{function}_compute_:")
    end = re.compile(r"\n\w+_compute_:").search(assembly, start + 1)
    loops: list[list[str]] = []
    lines: list[str] = []
    labels: dict[str, int] = {}
    for text in assembly[start : end and end.start()].splitlines():
        line = " ".join(text.split("//")[0].split())
        if match := re.match(r"(\.LBB\w+):", line):
            labels = {match[1]: len(lines)}
        elif line and not line.startswith(".") and not line.endswith(":"):
            lines.append(line)
            if line.startswith("b.") and (begin := labels.get(line.split()[-1])) is not None:
                loops.append(lines[begin:])
    return loops


@pytest.mark.parametrize(
    ("target", "dots"),
    [
        ("linux-arm64", ByteDots("sdot", 4, 32)),
        ("android-cpu-i8mm", ByteDots("usdot", 4, 32, blocks=True)),
        ("x86-64-v3-vnni", ByteDots("vpdpbusd", 8, 16)),
    ],
)
def test_profiles_name_their_instructions(target: str, dots: ByteDots) -> None:
    assert ByteDots.of(_target(target)) == dots
    assert load_target(target).layout == "dot4"


def test_avx_vnni_is_encoded_without_avx512() -> None:
    """Compiled only: machines with one have the other."""
    target = _target("x86-64-v3-vnni")
    dots = ByteDots.of(target)
    assert dots is not None
    kernel = linear_kernel(LAYERS["whole"], dots, single=True)
    module = tvm.IRModule({"matmul": kernel.function.with_attr("global_symbol", "matmul")})
    assembly = tvm.tirx.build(module, target).inspect_source("asm")
    assert assembly.count("vpdpbusd") >= 16
    assert assembly.count("vpdpbusd") == assembly.count("{vex}")
    assert "zmm" not in assembly
