"""Processors that QEMU emulates, and what their programs may use."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgec.errors import ToolchainError

if TYPE_CHECKING:
    from collections.abc import Iterable


@dataclass(frozen=True)
class Processor:
    """An emulated processor.

    Attributes:
        option: value of QEMU's ``-cpu``.
        features: flags as ``/proc/cpuinfo`` of such a machine gives them.
    """

    option: str
    features: frozenset[str]


def _flags(text: str) -> frozenset[str]:
    return frozenset(text.split())


_V8 = _flags("fp asimd aes pmull sha1 sha2 crc32 cpuid")
_V8_2 = _V8 | _flags("atomics fphp asimdhp asimdrdm lrcpc dcpop asimddp")
_MAX = _V8_2 | _flags(
    "jscvt fcma sha3 sm3 sm4 sha512 asimdfhm ilrcpc flagm sb paca pacg dcpodp flagm2 frint i8mm"
    " bf16 rng bti mte"
)
_SVE = _flags(
    "sve sve2 sveaes svepmull svebitperm svesha3 svesm4 svei8mm svef32mm svef64mm svebf16 sme"
)
# From the one with the fewest features on. SVE is taken from the last but one: code for phones that
# uses it by mistake has to fault.
_AARCH64 = (
    Processor("cortex-a53", _V8),
    Processor("cortex-a72", _V8),
    Processor("cortex-a76", _V8_2),
    Processor("neoverse-n1", _V8_2),
    Processor("max,sve=off", _MAX),
    Processor("max", _MAX | _SVE),
)
_PROCESSORS = {"aarch64": _AARCH64, "arm64": _AARCH64}
_MOST = "max"


def choose_processor(architecture: str, cpu: str | None, features: Iterable[str]) -> Processor:
    """The emulated processor that a library shall run on.

    Args:
        architecture: such as ``"aarch64"``.
        cpu: QEMU's name of a processor; None for the one that has these features, and otherwise
            as few as possible.
        features: flags of ``/proc/cpuinfo`` that the library needs; if there are none and no
            ``cpu`` is named, nothing is known of the library and it may use what phones have.

    Raises:
        ToolchainError: the processor lacks a feature, or none has them all.
    """
    wanted = frozenset(features)
    known = _PROCESSORS.get(architecture.lower(), ())
    if cpu is not None and cpu != _MOST:
        named = [item for item in known if item.option == cpu]
        # One that isn't listed here is left to QEMU, which has more of them in later versions.
        candidates = tuple(named) or (Processor(cpu, wanted),)
    else:
        candidates = known if wanted and cpu is None else known[-2:]
    for processor in candidates:
        if wanted <= processor.features:
            return processor
    missing = sorted(wanted - candidates[-1].features) if candidates else []
    raise ToolchainError(
        f"the emulated processor {candidates[-1].option} lacks {', '.join(missing)}"
        if missing
        else "no processor of this architecture is emulated",
        where=cpu or architecture,
        remedy="check the profile's cpu_features and standin_cpu, or verify on such a machine",
    )
