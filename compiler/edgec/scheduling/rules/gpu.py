"""Rules for GPU kernels beside those of TVM's dlight."""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

import tvm
from tvm import tirx
from tvm.s_tir import dlight
from tvm.s_tir.dlight.base import ScheduleRule

from edgec.scheduling.kernels.linear import LINEAR, Linear
from edgec.scheduling.rules.matrix_units import MatrixUnitMatmul


def matmul_rule(target: Any) -> ScheduleRule:
    """The rule for products of many rows: on matrix units where the target's kind has them."""
    name = f"edgec.scheduling.intrinsics.{target.kind.name}"
    if importlib.util.find_spec(name) is None:
        return PlainMatmul()
    platform = importlib.import_module(name)
    return FirstOf(MatrixUnitMatmul(platform.UNITS, platform.TILE), PlainMatmul())


def default_rules(target: Any) -> list[ScheduleRule]:
    """The rules for every kernel, in the order in which they are tried."""
    gpu = dlight.gpu
    return [
        matmul_rule(target),
        EvenGEMV(),
        gpu.Reduction(),
        gpu.GeneralReduction(),
        gpu.Fallback(),
    ]


class FirstOf(ScheduleRule):  # type: ignore[misc]
    """The first of some rules that schedules a function."""

    def __init__(self, *rules: ScheduleRule) -> None:
        self.rules = rules

    def apply(self, func: tirx.PrimFunc, target: Any, tunable: bool) -> Any:
        """Schedule one function, or return None if no rule does."""
        results = (rule.apply(func, target, tunable) for rule in self.rules)
        return next((result for result in results if result is not None), None)


class PlainMatmul(ScheduleRule):  # type: ignore[misc]
    """Tiles in registers and local memory, without matrix units.

    TVM's rule takes matrix units whenever the target's kind has some, and loads every matrix
    intrinsic there is for that, which costs 30 seconds. Under an OpenCL target with the same
    limits it does what is wanted here; the host decides whether tiles suit a phone. Those for
    phones load vectors of columns under a condition, which is no OpenCL unless the number of
    columns is known and even: only linear layers have them.
    """

    def apply(self, func: tirx.PrimFunc, target: Any, tunable: bool) -> Any:
        """Schedule one function, or return None to leave it to another rule."""
        linear = func.attrs.get(LINEAR) is not None
        like = _opencl_like(target) if linear else _without_host(target)
        return dlight.gpu.Matmul().apply(func, like, tunable)


class EvenGEMV(ScheduleRule):  # type: ignore[misc]
    """Products of one row, whose work-groups make up to 64 results at once.

    TVM's rule writes past the end of the results if their number isn't a multiple of those of a
    work-group. Such layers are left to the rule for reductions.
    """

    def apply(self, func: tirx.PrimFunc, target: Any, tunable: bool) -> Any:
        """Schedule one function, or return None to leave it to another rule."""
        layer = func.attrs.get(LINEAR)
        if layer is not None and Linear.from_json(str(layer)).n % _GEMV_RESULTS:
            return None
        return dlight.gpu.GEMV().apply(func, target, tunable)


_GEMV_RESULTS = 64


def _opencl_like(target: Any) -> Any:
    if target.kind.name == "opencl":
        return target
    return tvm.target.Target(_attributes(target), host=target.host)


def _without_host(target: Any) -> Any:
    return tvm.target.Target(_attributes(target))


def _attributes(target: Any) -> dict[str, Any]:
    return {
        "kind": "opencl",
        "max_num_threads": 256,
        "max_shared_memory_per_block": int(target.attrs["max_shared_memory_per_block"]),
        "thread_warp_size": 1,
    }
