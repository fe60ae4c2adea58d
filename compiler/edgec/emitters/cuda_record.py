"""What machine code was compiled from: a record beside it, and the proof that the record is true.

Verification executes the kernels' text, devices run machine code. The record ties one to the other
by their digests; compiling the text again with the same toolkit proves that it doesn't lie.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from edgec.emitters.cuda_binary import same_code
from edgec.emitters.cuda_cubin import KernelFacts
from edgec.emitters.cuda_toolkit import find_toolkit, install_parts
from edgec.emitters.kernel_code import text_file
from edgec.errors import ToolchainError, VerificationError
from edgec.files import pretty_json
from edgec.libraries.device import DeviceModule

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from edgec.emitters.cuda_binary import DeviceBinary
    from edgec.progress import Progress

SCHEMA = "edgec.cuda/v1"
NAME = "kernels.cuda.json"
"""The record's file, beside the library."""
MACHINE_CODE = frozenset(("fatbin", "cubin"))
"""The formats of device modules that hold machine code."""
_KIND = _SOURCE_FORMAT = "cuda"
_BUILD_AGAIN = "build the artifact again"


@dataclass(frozen=True)
class CudaRecord:
    """What a library's machine code is, and what it was made from.

    Attributes:
        format: of the code: ``"cubin"`` or ``"fatbin"``.
        code_sha256: of the machine code, 64 hex digits.
        text_sha256: of the kernels' text, 64 hex digits.
        architectures: of the GPUs that run the code.
        parts: versions of the toolkit's parts.
        kernels: what each kernel takes, for each architecture.
    """

    format: str
    code_sha256: str
    text_sha256: str
    architectures: tuple[str, ...]
    parts: Mapping[str, str]
    kernels: tuple[KernelFacts, ...]

    @staticmethod
    def of(text: bytes, binary: DeviceBinary) -> CudaRecord:
        """The record of machine code that was compiled from ``text``."""
        return CudaRecord(
            binary.format,
            hashlib.sha256(binary.code).hexdigest(),
            hashlib.sha256(text).hexdigest(),
            binary.architectures,
            binary.parts,
            binary.kernels,
        )

    def to_text(self) -> str:
        """JSON; equal records give equal text."""
        return pretty_json({"schema": SCHEMA, **asdict(self)})

    @staticmethod
    def parse(text: str | bytes, where: str) -> CudaRecord:
        """The inverse of :meth:`to_text`.

        Args:
            text: of the record.
            where: names its file in error messages.

        Raises:
            VerificationError: it is no record, or one of another version.
        """
        try:
            data = json.loads(text)
            if data.pop("schema") != SCHEMA or not isinstance(data["parts"], dict):
                raise ValueError  # noqa: TRY301 - all that is wrong with it is told below
            data["kernels"] = tuple(KernelFacts(**kernel) for kernel in data["kernels"])
            data["architectures"] = tuple(data["architectures"])
            return CudaRecord(**data)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise VerificationError(
                f"this is no record of machine code ({SCHEMA})", where=where, remedy=_BUILD_AGAIN
            ) from error

    def check(self, text: DeviceModule, shipped: DeviceModule, where: str) -> None:
        """Compare digests and signatures; takes no compiler.

        Args:
            text: the kernels as text.
            shipped: the device module inside the library.
            where: names the library in error messages.

        Raises:
            VerificationError: the text isn't what the record says, or the machine code isn't.
        """
        problem = None
        if text.format != _SOURCE_FORMAT:
            problem = f"the kernels' text has the format {text.format!r}"
        elif dict(text.functions) != dict(shipped.functions):
            problem = "the library's kernels have other signatures than those of the text"
        elif hashlib.sha256(text.code[""]).hexdigest() != self.text_sha256:
            problem = "the kernels' text is not the one that the machine code was compiled from"
        elif shipped.format != self.format:
            problem = f"the machine code is a {shipped.format}, and was recorded as a {self.format}"
        elif hashlib.sha256(shipped.code[""]).hexdigest() != self.code_sha256:
            problem = "the machine code is not the one that was recorded with the kernels' text"
        if problem:
            raise VerificationError(problem, where=where, remedy=_BUILD_AGAIN)

    def prove(
        self, text: DeviceModule, shipped: DeviceModule, where: str, progress: Progress
    ) -> None:
        """Compile the text again: the code that ships has to come out, byte for byte.

        Args: as those of :meth:`check`; ``progress`` hears of every architecture.

        Raises:
            VerificationError: it does not, or :meth:`check` fails.
            ToolchainError: the toolkit that the code was compiled with isn't here.
        """
        self.check(text, shipped, where)
        found = find_toolkit(self.parts.get("nvrtc")).parts
        for part, version in self.parts.items():
            if found.get(part) != version:
                raise ToolchainError(
                    f"the machine code was compiled with {part} {version},"
                    f" and here is {found.get(part, 'none')}",
                    where=where,
                    remedy=f"run: {install_parts(self.parts)}",
                )
        source, code = text.code[""].decode(), shipped.code[""]
        if not same_code(source, code, self.architectures, self.parts.get("nvrtc"), progress):
            raise VerificationError(
                "the kernels' text compiles to other machine code than the library holds",
                where=where,
                remedy=_BUILD_AGAIN,
            )


def read_text(library: Path) -> tuple[DeviceModule, CudaRecord]:
    """The text that a library's machine code was made from, and the record of that.

    Args:
        library: the file that they lie beside.

    Raises:
        VerificationError: one of the files is missing or damaged.
    """
    text, record = text_file(library.parent, _KIND), library.with_name(NAME)
    try:
        source = DeviceModule.parse(_KIND, text.read_bytes(), str(text))
        return source, CudaRecord.parse(record.read_bytes(), str(record))
    except OSError as error:
        raise VerificationError(
            f"the kernels are machine code, and their text can't be read ({error.strerror})",
            where=str(error.filename),
            remedy=_BUILD_AGAIN,
        ) from error
