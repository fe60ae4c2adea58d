from __future__ import annotations

import io
import json
import pickle
import zipfile
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from edgec.errors import CheckpointError
from edgec.importers.pt2_archive import _is_size, check_archive

if TYPE_CHECKING:
    from pathlib import Path

NODE = {"nodes": [{"target": "torch.ops.aten.add.Tensor"}]}


def _write(path: Path, entries: dict[str, bytes]) -> Path:
    file = path / "m.pt2"
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return file


def _entries(**changed: Any) -> dict[str, bytes]:
    buffer = io.BytesIO()
    torch.save(((torch.zeros(2),), {}), buffer)
    sound = {
        "m/models/model.json": NODE,
        "m/data/weights/model_weights_config.json": {"config": {"w": {"use_pickle": False}}},
        "m/data/sample_inputs/model.pt": buffer.getvalue(),
    }
    names = {"model": "m/models/model.json", "config": "m/data/weights/model_weights_config.json"}
    for key, value in changed.items():
        sound[names.get(key, "m/data/sample_inputs/model.pt")] = value
    return {
        name: data if isinstance(data, bytes) else json.dumps(data).encode()
        for name, data in sound.items()
    }


class _Runs:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("this code must not run",))


def test_data_alone_is_accepted(tmp_path: Path) -> None:
    check_archive(_write(tmp_path, _entries()))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"model": {"target": "torch.hub.load"}}, "'torch.hub.load' is no operator of torch"),
        ({"model": {"target": "os.system"}}, "'os.system' is no operator of torch"),
        ({"model": {"expr_str": "print(chr(1))"}}, "is no expression of sizes"),
        ({"model": {"expr_str": "Symbol('s1', a=exec('x'))"}}, "is no expression of sizes"),
        ({"config": {"w": {"use_pickle": True}}}, "a tensor is pickled"),
        ({"config": {"w": {"path_name": "custom_obj_0"}}}, "there is a custom object"),
        ({"inputs": pickle.dumps(_Runs())}, "the example inputs aren't tensors only"),
    ],
)
def test_what_could_run_code_is_refused(
    changed: dict[str, Any], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CheckpointError, match=r"write it with torch\.export\.save") as caught:
        check_archive(_write(tmp_path, _entries(**changed)))
    assert message in str(caught.value)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    "entries",
    [
        {"m/data/weights/model.pt": b"x", "m/models/model.json": b"{}"},
        {"m/data/constants/opaque_obj_0": b"x", "m/models/model.json": b"{}"},
        {"m/models/model.json": b"{"},
        {"m/other.json": b"{}"},
    ],
)
def test_other_entries_are_refused(entries: dict[str, bytes], tmp_path: Path) -> None:
    with pytest.raises(CheckpointError):
        check_archive(_write(tmp_path, entries))


@given(data=st.binary(max_size=300))
@settings(max_examples=60)
def test_bytes_that_are_no_archive(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    file = tmp_path_factory.mktemp("pt2") / "m.pt2"
    file.write_bytes(data)
    with pytest.raises(CheckpointError):
        check_archive(file)


@pytest.mark.parametrize(
    "text",
    [
        "s40",
        "4*s0 + 1",
        "Symbol('s40', positive=True, integer=True)",
        "FloorDiv(s1 - 1, 2)",
        "Mul(Integer(2), Symbol('s77', integer=True))",
    ],
)
def test_expressions_of_sizes(text: str) -> None:
    assert _is_size(text)


@given(st.from_regex(r"[a-z_]{2,8}\((s0|1)?\)", fullmatch=True))
def test_calls_are_no_expressions_of_sizes(text: str) -> None:
    assert not _is_size(text)
