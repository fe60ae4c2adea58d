"""TVM without its compiler: only where a whole process is known to compile nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest

from edgec.cli import loading
from edgec.cli.settings import Settings

_LOAD = """
import json, os, sys
from edgec.ir.load import load_tvm, spare_compiler
spare_compiler()
load_tvm()
import tvm
from tvm.runtime.vm import VirtualMachine
maps = open("/proc/self/maps").read() if os.path.exists("/proc/self/maps") else ""
print(json.dumps([
    "tvm.relax" in sys.modules,
    "libtvm_compiler" in maps,
    "TVM_USE_RUNTIME_LIB" in os.environ,
    tvm.get_global_func("vm.builtin.attention_kv_cache_attention_with_fused_qkv") is not None,
]))
"""


def test_the_runtime_is_enough_for_engines() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LOAD], check=True, capture_output=True, text=True, timeout=120
    )
    assert json.loads(done.stdout.splitlines()[-1]) == [False, False, False, True]


@pytest.mark.parametrize("own_process", [False, True])
def test_only_a_process_of_the_command_line_does_without(
    own_process: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spared: list[bool] = []
    monkeypatch.setattr(loading, "spare_compiler", lambda: spared.append(True))
    with click.Context(click.Command("run"), obj=Settings(own_process=own_process)):
        loading.only_run()
    assert spared == [True] * own_process
