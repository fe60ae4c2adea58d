"""The machine code of a CUDA library is compared with what its text compiles to."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from library_builders import BLOB, BYTECODE, elf

from edgec.emitters.cuda_record import NAME, CudaRecord
from edgec.emitters.kernel_code import text_file
from edgec.errors import ToolchainError, VerificationError
from edgec.libraries.blob import Blob, BlobModule
from edgec.libraries.device import DeviceModule, KernelInfo
from edgec.libraries.open import BLOB_SYMBOL
from edgec.progress import Silent
from edgec.verification.machine_code import has_machine_code, prove_machine_code

if TYPE_CHECKING:
    from pathlib import Path

KERNELS = {"k": KernelInfo("k", ("handle",), ("threadIdx.x",), (0,))}
TEXT = DeviceModule("cuda", "cuda", KERNELS, {"": b"text"})
SHIPPED = DeviceModule("cuda", "cubin", KERNELS, {"": b"machine code"})
PARTS = {"nvrtc": "12.6.85"}
RECORD = CudaRecord(
    "cubin",
    hashlib.sha256(b"machine code").hexdigest(),
    hashlib.sha256(b"text").hexdigest(),
    ("sm_87",),
    PARTS,
    (),
)


def library(folder: Path, text: DeviceModule = TEXT, blob: Blob | None = None) -> Path:
    """A library with the text of its kernels and the record beside it."""
    module = BlobModule("cuda", SHIPPED.to_bytes())
    blob = blob or Blob((BYTECODE, BlobModule("_lib", None), module), BLOB.row_ptr, BLOB.children)
    path = folder / "model.so"
    path.write_bytes(elf({BLOB_SYMBOL: blob.to_bytes()}, shared=True))
    text_file(folder, "cuda").write_bytes(text.to_bytes())
    (folder / NAME).write_text(RECORD.to_text())
    return path


def proving(monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
    """The compiler gives what ships, or fails; the record's digests are compared in any case."""

    def prove(self: CudaRecord, *arguments: Any) -> None:
        self.check(*arguments[:3])
        if error:
            raise error

    monkeypatch.setattr(CudaRecord, "prove", prove)


def test_machine_code_that_comes_out_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proving(monkeypatch)
    path = library(tmp_path)
    assert has_machine_code(path)
    assert prove_machine_code(path, Silent()) == {
        "architectures": ["sm_87"],
        "parts": PARTS,
        "proven": True,
    }


def test_without_the_toolkit_nothing_is_proven(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proving(monkeypatch, ToolchainError("it was compiled with nvrtc 12.6.85"))
    found = prove_machine_code(library(tmp_path), Silent())
    assert found["proven"] is False
    assert found["reason"] == "it was compiled with nvrtc 12.6.85"


def test_other_machine_code_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proving(monkeypatch, VerificationError("compiles to other machine code"))
    with pytest.raises(VerificationError, match="other machine code"):
        prove_machine_code(library(tmp_path), Silent())


def test_another_text_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proving(monkeypatch)
    path = library(tmp_path, replace(TEXT, code={"": b"other"}))
    with pytest.raises(VerificationError, match="not the one that the machine code was compiled"):
        prove_machine_code(path, Silent())
    text_file(tmp_path, "cuda").unlink()
    with pytest.raises(VerificationError, match="their text can't be read"):
        prove_machine_code(path, Silent())


def test_a_library_without_kernels_and_with_a_record(tmp_path: Path) -> None:
    blob = Blob((BYTECODE, BlobModule("_lib", None)), (0, 1, 1), (1,))
    with pytest.raises(VerificationError, match="the library has no kernels"):
        prove_machine_code(library(tmp_path, blob=blob), Silent())


def test_libraries_of_other_kinds_have_none(tmp_path: Path) -> None:
    path = library(tmp_path)
    (tmp_path / NAME).unlink()
    assert not has_machine_code(path)
