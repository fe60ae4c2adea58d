"""The engine in another process: what it sends, what comes back, and which driver it is given."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgec.errors import CheckpointError, ToolchainError, UsageError, VerificationError
from edgec.runtime.engine import Engine
from edgec.runtime.forward import Capacity
from edgec.standins import Requirements, find_standin
from edgec.standins.dawn import adapter, worker
from edgec.standins.dawn.engine import DawnEngine
from edgec.standins.dawn.worker import Worker

if TYPE_CHECKING:
    from edgec.verification import interfaces

LIBRARY = Path("lib/model.wasm")
METADATA = {"prefill_chunk_size": 4, "max_batch_size": 2, "context_window_size": 64, "params": []}
# Speaks as worker.mjs does. Logits are the tokens themselves, and it tells what it was asked.
FAKE = """
import json, socket, struct, sys
import numpy as np
connection = socket.socket(fileno=int(sys.argv[1]))
def read(count):
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more: raise SystemExit
        data += more
    return data
def send(fields, *tensors):
    tensors = [np.ascontiguousarray(tensor) for tensor in tensors]
    fields["tensors"] = [
        {"dtype": t.dtype.name, "shape": list(t.shape), "nbytes": t.nbytes} for t in tensors]
    text = json.dumps(fields).encode()
    connection.sendall(struct.pack("<II", len(text), sum(t.nbytes for t in tensors)) + text
        + b"".join(t.tobytes() for t in tensors))
asked = []
while True:
    sizes = struct.unpack("<II", read(8))
    fields, payload, start, tensors = json.loads(read(sizes[0])), read(sizes[1]), 0, []
    for item in fields.pop("tensors"):
        count = int(np.prod(item["shape"], dtype=int))
        tensors.append(np.frombuffer(payload, item["dtype"], count, start).reshape(item["shape"]))
        start += item["nbytes"]
    asked.append(fields)
    operation = fields["operation"]
    if operation == "open":
        facts = {"adapter": "toy", "features": ["shader-f16"], "kernels": 3, "pipeline_seconds": 1}
        send({"ok": True, "metadata": METADATA, "facts": facts})
    elif operation == "forward":
        rows = tensors[0].astype(np.float32)[None, :, None] * np.ones(2, np.float32)
        send({"ok": True}, rows if fields["name"] == "batch_verify" else rows[:, -1:])
    elif operation == "call":
        more = [] if fields["name"].startswith("softmax") else [np.asarray([], np.int32)]
        send({"ok": True}, *tensors[: None if more else 1], *more)
    elif operation == "in_place":
        send({"ok": True}, tensors[0] + 1)
    elif operation == "has":
        send({"ok": True, "found": fields["name"] == "there"})
    elif operation == "asked":
        send({"ok": True, "asked": asked})
    elif operation == "adapter":
        send({"ok": False, "kind": "adapter", "message": "toy has no shader-f16", "said": []})
    elif operation == "throw":
        send({"ok": False, "kind": "library", "message": "unreachable", "said":
            ["Traceback (most recent call last):", '  File "a.cc", line 1', "TypeError: no"]})
    elif operation == "crash":
        print("driver: boom", file=sys.stderr); sys.exit(3)
    else:
        send({"ok": True})
"""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    (tmp_path / "tensor-cache.json").write_text(json.dumps({"metadata": {}, "records": []}))
    return tmp_path


@pytest.fixture
def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """A worker whose other end is Python, and not Node.js."""
    program = tmp_path / "fake.py"
    program.write_text(FAKE.replace("METADATA", repr(METADATA)))
    monkeypatch.setattr(worker, "_PROGRAM", program)
    monkeypatch.setattr(worker, "node", lambda: sys.executable)
    monkeypatch.setattr(worker, "npm_folder", lambda _name, folder: folder)
    monkeypatch.setattr(worker, "driver_environment", dict)
    return Worker(LIBRARY)


def asked(process: Worker) -> list[dict[str, Any]]:
    requests: list[dict[str, Any]] = process.request("asked").fields["asked"]
    return requests


def test_it_is_an_engine_of_the_checks(process: Worker, weights: Path) -> None:
    engine: interfaces.Engine = DawnEngine(process, LIBRARY, weights)  # mypy checks the type
    # A library without a cache is none for it, it embeds no images, and nobody watches it.
    plain = {"has_cache", "run", "embed_image", "watch"}
    public = {name for name in vars(Engine) if not name.startswith("_")} - plain
    assert public <= set(dir(engine))


def test_sequences_are_told_by_number(process: Worker, weights: Path) -> None:
    engine = DawnEngine(process, LIBRARY, weights, Capacity(2, 32, 4))
    engine.add(3)
    engine.fork(3, 1)
    engine.pop(1, 2)
    engine.remove(3)
    engine.clear()
    told = asked(process)[1:-1]
    assert told[0] == {"operation": "cache", "sizes": [2, 32, 4, 16, 0]}
    assert [(item["name"], item["numbers"]) for item in told[1:]] == [
        ("kv_state_add_sequence", [3]),
        ("kv_state_fork_sequence", [3, 1, -1]),
        ("kv_state_popn", [1, 2]),
        ("kv_state_remove_sequence", [3]),
        ("kv_state_clear", []),
    ]


def test_prompts_go_in_chunks_by_the_functions_of_the_contract(
    process: Worker, weights: Path
) -> None:
    engine = DawnEngine(process, LIBRARY, weights)
    assert engine.prefill(0, range(9)).tolist() == [8, 8]
    assert engine.decode(0, 7).tolist() == [7, 7]
    assert engine.all_logits(0, range(6))[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    assert engine.batch_prefill([1, 0], [[5, 6], [7]]).shape == (1, 2)
    assert engine.batch_decode([1, 0], [5, 6]).dtype == np.float32
    calls = [
        (item["name"], item["sequences"], item["lengths"])
        for item in asked(process)
        if item["operation"] == "forward"
    ]
    assert calls == [
        ("prefill", [0], [4]),
        ("prefill", [0], [4]),
        ("decode", [0], [1]),  # what is left of nine tokens
        ("decode", [0], [1]),
        ("batch_verify", [0], [4]),
        ("batch_verify", [0], [2]),
        ("batch_prefill", [1, 0], [2, 1]),
        ("batch_decode", [1, 0], [1, 1]),
    ]


def test_arrays_of_any_type_and_layout_come_back(process: Worker, weights: Path) -> None:
    engine = DawnEngine(process, LIBRARY, weights)
    sent = (
        np.arange(6, dtype=np.float16).reshape(2, 3).T,
        np.asarray([1, -2], np.int32),
        np.asarray([3], np.uint8),
    )
    *back, empty = engine.call("echo", *sent)
    for one, other in zip(sent, back, strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
    assert empty.shape == (0,)
    assert engine.in_place("apply", np.zeros((2, 3))).tolist() == [[1] * 3] * 2
    assert engine.function("echo")(sent[1])[0].tolist() == [1, -2]
    assert engine.softmax(np.ones((2, 3), np.float32), [1, 2]).shape == (2, 3)
    assert engine.has("there")
    assert not engine.has("elsewhere")


def test_more_than_the_library_was_compiled_for_is_refused(process: Worker, weights: Path) -> None:
    with pytest.raises(UsageError, match="prefill chunks of 4 tokens and batches of 2"):
        DawnEngine(process, LIBRARY, weights, Capacity(1, 64, 5))


def test_a_damaged_folder_is_refused_before_it_is_loaded(process: Worker, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="tensor-cache"):
        DawnEngine(process, LIBRARY, tmp_path / "none")
    assert [item["operation"] for item in asked(process)] == ["asked"]


def test_failures_say_why(process: Worker) -> None:
    with pytest.raises(ToolchainError, match=r"toy has no shader-f16; .*VK_DRIVER_FILES"):
        process.request("adapter")
    with pytest.raises(VerificationError, match=r"model\.wasm: TypeError: no; unreachable; this"):
        process.request("throw")
    with pytest.raises(ToolchainError, match=r"Node\.js ended in crash \(driver: boom\)"):
        process.request("crash")
    with pytest.raises(ToolchainError, match=r"ended in again"):
        process.request("again")


def test_nothing_can_be_looked_at() -> None:
    dawn = find_standin("dawn")
    for options in ({"checked": True}, {"observer": lambda _call, run: run()}):
        with pytest.raises(UsageError, match="choose the stand-in wgpu"):
            dawn.open_engine(LIBRARY, Path("model"), Requirements("wasm32"), **options)


class TestDriver:
    """Which Vulkan driver is named to Dawn."""

    @pytest.fixture(autouse=True)
    def world(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("VK_DRIVER_FILES", "VK_ICD_FILENAMES", "XDG_RUNTIME_DIR"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("EDGEC_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(adapter.sys, "platform", "linux")
        monkeypatch.setattr(adapter, "_FOLDERS", (str(tmp_path / "icd"),))
        monkeypatch.setattr(adapter, "_CHROMIUM", (str(tmp_path / "chromium"),))
        monkeypatch.setattr(adapter, "_SYSTEM", tmp_path / "os-release")
        (tmp_path / "icd").mkdir()
        (tmp_path / "chromium").mkdir()

    def lavapipe(self, folder: Path, version: str) -> Path:
        path = folder / "icd" / "lvp_icd.x86_64.json"
        path.write_text(json.dumps({"ICD": {"api_version": version, "library_path": "lvp.so"}}))
        return path

    def test_of_the_user(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("VK_DRIVER_FILES", "/my/gpu.json")
        assert adapter.driver_environment() == {}

    def test_of_the_system(self, tmp_path: Path) -> None:
        path = self.lavapipe(tmp_path, "1.4.305")
        found = adapter.driver_environment()
        assert found["VK_DRIVER_FILES"] == found["VK_ICD_FILENAMES"] == str(path)
        assert found["MESA_SHADER_CACHE_DIR"].startswith(str(tmp_path / "cache"))

    def test_of_chromium_where_the_systems_is_too_old(self, tmp_path: Path) -> None:
        self.lavapipe(tmp_path, "1.1.230")
        with pytest.raises(ToolchainError, match=r"lavapipe of Mesa 25 .*install it \(Debian"):
            adapter.driver_environment()
        path = tmp_path / "chromium" / "vk_swiftshader_icd.json"
        path.write_text("{}")
        assert adapter.driver_environment()["VK_DRIVER_FILES"] == str(path)

    @pytest.mark.parametrize("version", ["25.0.7-2~bpo12+1", "24.2.8-1"])
    def test_of_debians_backports(
        self, version: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "os-release").write_text('ID=debian\nVERSION_CODENAME="toy"\n')
        monkeypatch.setattr(adapter.shutil, "which", lambda name: name)
        ran = []

        def run(command: list[str], folder: Path) -> str:
            ran.append(command[0])
            if "indextargets" in command:
                return "toy contrib http://x/\ntoy main http://archive/\n"
            if command[0] == "apt-get":
                text = (folder / "sources.list").read_text()
                assert text == "deb http://archive/ toy-backports main\n"
            if "madison" in command:
                return f" mesa-vulkan-drivers | {version} | http://archive\n"
            if "download" in command:
                assert command[-1] == f"mesa-vulkan-drivers={version}"
                (folder / "mesa-vulkan-drivers_1_amd64.deb").touch()
            if command[0] == "dpkg":
                out = Path(command[-1])
                (out / "usr/lib/toy").mkdir(parents=True)
                (out / "usr/lib/toy/libvulkan_lvp.so").touch()
                (out / "usr/share/vulkan/icd.d").mkdir(parents=True)
                described = out / "usr/share/vulkan/icd.d/lvp_icd.json"
                described.write_text('{"ICD": {"library_path": "libvulkan_lvp.so"}}')
            return ""

        monkeypatch.setattr(adapter, "_run", run)
        if version.startswith("24"):
            with pytest.raises(ToolchainError, match="Mesa 25"):
                adapter.driver_environment()
            return
        path = Path(adapter.driver_environment()["VK_DRIVER_FILES"])
        library = json.loads(path.read_text())["ICD"]["library_path"]
        # Vulkan's loader looks beside the description only for what has a folder in its name.
        assert library.startswith("./")
        assert (path.parent / library).is_file()
        assert sorted(os.listdir(path.parent)) == ["lavapipe.json", "usr"]
        count = len(ran)
        assert adapter.driver_environment()["VK_DRIVER_FILES"] == str(path)
        assert len(ran) == count == 5
