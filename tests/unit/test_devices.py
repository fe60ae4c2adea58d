"""Which device a library runs on, and what is said when it is missing."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
from artifact_fakes import FakeDevice

from edgec.errors import ToolchainError
from edgec.layouts.specs import TensorSpec, decode_bytes
from edgec.models.parameters import Parameter
from edgec.runtime import devices
from edgec.runtime.bandwidth import Traffic, copy_rate
from edgec.runtime.devices import device_name, load_cuda, open_device
from edgec.runtime.tvm_runtime import is_cpu


def test_host_code_runs_on_the_processor() -> None:
    device = open_device(None, "lib/model.so")
    assert is_cpu(device)
    assert device_name(device)


def test_a_gpu_has_the_name_that_its_driver_gives() -> None:
    assert device_name(FakeDevice(2, "NVIDIA Toy")) == "NVIDIA Toy"


@pytest.mark.parametrize("kind", ["opencl", "metal", "vulkan"])
def test_kernels_of_other_devices_are_refused(kind: str) -> None:
    with pytest.raises(ToolchainError, match=rf"^lib/model.so: .*for {kind}.* edgec verify"):
        open_device(kind, "lib/model.so")


@pytest.mark.parametrize(
    ("missing", "remedy"),
    [
        ("libcuda.so.1", "install the driver"),
        ("libcudart.so.13", "run: pip install nvidia-cuda-runtime"),
        ("libtvm_runtime_cuda.so", "install apache-tvm again"),
    ],
)
def test_the_missing_piece_is_named(
    missing: str, remedy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import tvm  # noqa: PLC0415 - slow

    def load(name: str) -> None:
        if name.endswith(missing):
            raise OSError("no such file")

    monkeypatch.setattr(tvm.runtime, "enabled", lambda _kind: False)
    with pytest.raises(ToolchainError, match=rf"^gpu: .*needs {missing} .no such file.; {remedy}"):
        load_cuda("gpu", load)


def test_the_runtime_of_pip_is_taken_where_the_system_has_none(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import tvm  # noqa: PLC0415 - slow

    loaded: list[str] = []

    def load(name: str) -> None:
        if name == "libcudart.so.13":
            raise OSError("no such file")
        loaded.append(name)

    monkeypatch.setattr(tvm.runtime, "enabled", lambda _kind: False)
    monkeypatch.setattr(tvm, "cuda", lambda _number: SimpleNamespace(exist=False))
    monkeypatch.setattr(devices, "_from_pip", lambda: ["/pip/libcudart.so.13"])
    with pytest.raises(ToolchainError, match="no NVIDIA GPU that its driver shows"):
        load_cuda("gpu", load)
    assert loaded[:2] == ["libcuda.so.1", "/pip/libcudart.so.13"]


def test_the_rate_of_copies_counts_what_is_read_and_written() -> None:
    ticks = itertools.count()
    device: Any = open_device(None, "x")
    assert copy_rate(device, nbytes=1000, copies=3, clock=lambda: float(next(ticks))) == 6000


def test_the_share_of_the_memory_that_decoding_takes() -> None:
    traffic = Traffic(weights=600, kv_cache=400, rate=10_000.0)
    assert traffic.share(5) == 0.5
    assert traffic.to_json(5)["decode_share_of_memory_copy"] == 0.5


def test_a_decode_step_reads_one_row_of_the_embeddings() -> None:
    embedding = Parameter("embed.weight", (4, 8), "embedding", ())
    head = Parameter("lm_head.weight", (4, 8), "head", ())
    specs = [
        TensorSpec("embed.q_weight", (4, 1), "uint32", "embed.weight"),
        TensorSpec("lm_head.weight", (4, 8), "float16", "lm_head.weight"),
    ]
    assert decode_bytes(specs, [embedding, head]) == 64
    assert decode_bytes(specs[:1], [embedding]) == 16
