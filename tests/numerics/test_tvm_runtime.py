"""A model runs without TVM's Python package, and TVM can still be loaded afterwards."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

_COMPILE = """
import sys
from edgec.ir.load import load_tvm
load_tvm()
import tvm
from tvm.script import tirx as T
@T.prim_func(s_tir=True)
def double(x: T.Buffer((8,), "float32"), y: T.Buffer((8,), "float32")):
    for i in range(8):
        y[i] = x[i] * T.float32(2)
tvm.compile(tvm.IRModule({"double": double}), "llvm").export_library(sys.argv[1])
"""

_RUN = """
import json, os, runpy, sys
import numpy as np
from edgec.runtime import tvm_runtime as runtime
from edgec.ir.load import load_tvm
x, device = np.arange(8, dtype=np.float32), runtime.cpu()
library = runtime._ffi().load_module(sys.argv[1])
def doubled():
    y = runtime.empty((8,), "float32", device)
    library["double"](runtime.tensor(x, device), y)
    assert runtime.is_tensor(y) and runtime.on_device(y, device) is y
    return runtime.array_of(y).tolist()
first = doubled()
alone = "tvm" not in sys.modules and "torch" not in sys.modules
maps = open("/proc/self/maps").read() if os.path.exists("/proc/self/maps") else ""
alone = alone and "libtvm_compiler" not in maps
sys.argv = [sys.argv[2], sys.argv[1] + ".again.so"]
runpy.run_path(sys.argv[0])
second = doubled()
import tvm
third = tvm.runtime.tensor(x)
print(json.dumps([alone, first, second, runtime.array_of(third).tolist()]))
"""


def test_libraries_run_without_tvms_package_and_beside_it(tmp_path: Path) -> None:
    compile_it, library = tmp_path / "compile.py", tmp_path / "double.so"
    compile_it.write_text(_COMPILE)
    subprocess.run([sys.executable, str(compile_it), str(library)], check=True, timeout=120)
    done = subprocess.run(
        [sys.executable, "-c", _RUN, str(library), str(compile_it)],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    )
    alone, *results = json.loads(done.stdout.splitlines()[-1])
    assert alone
    doubled = [2.0 * i for i in range(8)]
    assert results == [doubled, doubled, [float(i) for i in range(8)]]
