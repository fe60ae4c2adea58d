"""``edgec bench`` on an engine that follows a script."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from artifact_fakes import FakeDevice, make_artifact
from cli_calls import call
from cli_session import H, Opened

from edgec.cli.commands import bench
from edgec.runtime.profile import KernelProfile, PassProfile

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    found = Opened()
    monkeypatch.setattr(bench, "open_session", found)
    monkeypatch.setattr(bench, "read_rate", lambda _threads: 4e9)
    return found


@pytest.fixture
def folder(tmp_path: Path) -> str:
    return str(make_artifact(tmp_path / "a").folder)


def test_bench_prints_a_table(opened: Opened, folder: str) -> None:
    opened.engine.script = [H] * 1000
    arguments = ["--prompt-tokens", "10", "--generate-tokens", "5", "--repeat", "2"]
    done = call("bench", folder, *arguments)
    assert done.code == 0
    assert [line.split("  ")[0] for line in done.out.splitlines()] == [
        "MEASURED",
        "time to first token",
        "prefill",
        "decode",
        "latency per token, P50",
        "latency per token, P90",
    ]
    assert "KV cache 4.0 KiB in float32 for " in done.err


def test_bench_in_json(opened: Opened, folder: str) -> None:
    opened.engine.script = [H] * 1000
    done = call("bench", folder, "--prompt-tokens", "10", "--generate-tokens", "5", "--json")
    data = done.data
    assert data["schema"] == "edgec.bench/v1"
    assert data["workload"] == {"prompt_tokens": 10, "generate_tokens": 5, "repeat": 5}
    assert data["decode_tokens_per_s"].keys() == {"min", "median", "max"}
    assert data["memory"]["kv_cache_bytes"] == 4096
    assert data["memory"]["kv_cache_dtype"] == "float32"
    assert data["memory"]["peak_rss_bytes"] > 0
    assert (data["threads"], data["load_s"]) == (2, 0.5)
    assert data["machine"]["cpu"]


def test_bench_on_a_gpu_says_how_near_the_limit_of_its_memory_it_is(
    opened: Opened, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.engine.script = [H] * 1000
    opened.engine.device = FakeDevice(2, "NVIDIA Toy")
    monkeypatch.setattr(bench, "copy_rate", lambda _device: 2e9)
    arguments = ["bench", folder, "--prompt-tokens", "10", "--generate-tokens", "4"]
    done = call(*arguments)
    assert "NVIDIA Toy, 2 threads" in done.err
    assert "of the 2 GB/s at which this GPU copies memory" in done.err
    data = call(*arguments, "--json").data
    assert data["machine"]["device"] == "NVIDIA Toy"
    # 4096 bytes are 64 tokens of keys and values, of which 10 + 4 / 2 are read.
    assert (data["decode_weights_bytes"], data["decode_kv_cache_bytes"]) == (4000, 12 * 64)
    rate = data["decode_tokens_per_s"]["median"]
    assert data["decode_share_of_memory_copy"] == pytest.approx(4768 * rate / 2e9, rel=1e-3)


def test_bench_on_a_processor_says_how_near_the_limit_of_its_memory_it_is(
    opened: Opened, folder: str
) -> None:
    opened.engine.script = [H] * 1000
    arguments = ["bench", folder, "--prompt-tokens", "10", "--generate-tokens", "4"]
    assert "of the 4 GB/s at which this machine reads memory" in call(*arguments).err
    data = call(*arguments, "--json").data
    rate = data["decode_tokens_per_s"]["median"]
    assert data["decode_share_of_memory_read"] == pytest.approx(4768 * rate / 4e9, rel=1e-3)
    assert data["memory_read_bytes_per_s"] == 4e9
    assert "profile" not in data


def test_bench_shows_what_kernels_take(
    opened: Opened, folder: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened.engine.script = [H] * 1000
    kernels = (
        KernelProfile("gemv", 2, 0.004, 8_000_000),
        KernelProfile("virtual machine", 5, 0.001, 0),
    )
    found = PassProfile("decode", 1, 12, 0.008, 0.009, kernels)
    seen: dict[str, Any] = {}
    monkeypatch.setattr(
        bench,
        "profile",
        lambda _engine, prompt, **rest: seen.update(rest, prompt=prompt) or [found],
    )
    arguments = ["bench", folder, "--prompt-tokens", "10", "--generate-tokens", "4", "--profile"]
    lines = call(*arguments).out.splitlines()[-6:]
    assert lines[1] == "decode of a token behind 12: 8.00 ms, while watched 9.00 ms"
    assert [line.split() for line in lines[2:]] == [
        ["KERNEL", "CALLS", "TIME", "SHARE", "MB", "GB/S", "OF", "MEMORY"],
        ["gemv", "2", "4.000", "ms", "50.0", "%", "8.00", "2.0", "50", "%"],
        ["virtual", "machine", "5", "1.000", "ms", "12.5", "%"],
        ["between", "calls", "3.000", "ms", "37.5", "%"],
    ]
    assert (len(seen["prompt"]), seen["steps"], seen["kv_bytes_per_token"]) == (10, 4, 64)
    data = call(*arguments, "--json").data["profile"]["decode"]
    assert (data["context"], data["rest_s"]) == (12, 0.003)
    assert data["kernels"][0] == {
        "name": "gemv",
        "calls": 2,
        "seconds": 0.004,
        "bytes": 8_000_000,
        "bytes_per_s": 2e9,
        "share_of_memory": 0.5,
    }


def test_bench_refuses_more_than_the_context(opened: Opened, folder: str) -> None:
    done = call("bench", folder, "--json")
    assert done.code == 2
    assert done.data["schema"] == "edgec.error/v1"
