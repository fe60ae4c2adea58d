"""An emulated processor has what a library may use, and as little else as possible."""

from __future__ import annotations

import pytest

from edgec.errors import ToolchainError
from edgec.standins.guest.processors import choose_processor


@pytest.mark.parametrize(
    ("cpu", "features", "option"),
    [
        (None, ["asimd", "fp"], "cortex-a53"),
        (None, ["asimddp", "fphp"], "cortex-a76"),
        (None, ["asimddp", "i8mm"], "max,sve=off"),
        (None, ["sve2"], "max"),
        # Host code of GPU libraries, of which no profile says what it uses.
        (None, [], "max,sve=off"),
        ("cortex-a76", ["asimddp"], "cortex-a76"),
        ("cortex-a76", [], "cortex-a76"),
        ("neoverse-n1", ["asimddp"], "neoverse-n1"),
        ("max", ["i8mm"], "max,sve=off"),
        ("max", ["sve"], "max"),
        ("neoverse-v1", ["sve"], "neoverse-v1"),
    ],
)
def test_the_processor_fits(cpu: str | None, features: list[str], option: str) -> None:
    assert choose_processor("aarch64", cpu, features).option == option


def test_a_processor_without_a_feature_is_refused() -> None:
    with pytest.raises(ToolchainError, match="cortex-a76 lacks bf16, i8mm;"):
        choose_processor("aarch64", "cortex-a76", ["i8mm", "asimddp", "bf16"])
    with pytest.raises(ToolchainError, match="max lacks mte9"):
        choose_processor("aarch64", None, ["mte9"])
    with pytest.raises(ToolchainError, match=r"riscv64: no processor of this architecture"):
        choose_processor("riscv64", None, [])
