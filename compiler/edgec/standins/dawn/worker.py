"""A process of Node.js that runs one library."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import subprocess
import tempfile
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NoReturn

import numpy as np
import numpy.typing as npt

from edgec.errors import EdgecError, ToolchainError, VerificationError
from edgec.standins.dawn.adapter import driver_environment
from edgec.standins.npm import node, npm_folder

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Array = npt.NDArray[Any]

_HERE = Path(__file__).parent
_PROGRAM = _HERE / "worker.mjs"
_PACKAGES = _HERE / "npm"
# Sizes in bytes of the JSON object and of the tensors that follow it.
_SIZES = struct.Struct("<II")
_MESSAGE_LINES = 4
# Lines of a trace through the runtime's sources.
_TRACE = ("Traceback", "File ")


@dataclass(frozen=True)
class Reply:
    """What a request gave.

    Attributes:
        fields: by name; ``seconds`` is the time that it took there.
        tensors: in order.
    """

    fields: Mapping[str, Any]
    tensors: Sequence[Array] = field(default=())


class Worker:
    """Sends requests to ``worker.mjs`` and waits for their answers. Not thread-safe.

    Args:
        library: names the library in messages.

    Raises:
        ToolchainError: Node.js, its packages or a Vulkan driver are missing.
    """

    def __init__(self, library: Path) -> None:
        self._library = library
        command = [node(), str(_PROGRAM)]
        packages = npm_folder("the stand-in dawn", _PACKAGES)
        environment = {**os.environ, **driver_environment()}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by _end
        self._socket, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [*command, str(theirs.fileno()), str(packages)],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=self._errors,
                stderr=self._errors,
                env=environment,
            )
        self._finish = weakref.finalize(self, _end, self._socket, self._process, self._errors)

    def close(self) -> None:
        """End the process."""
        self._finish()

    def request(self, operation: str, *tensors: Array, **fields: Any) -> Reply:
        """Have ``worker.mjs`` do something.

        Args:
            operation: its name there.
            tensors: in any layout; their types are known by the same names in numpy and in TVM.
            fields: what else the operation takes, as plain data.

        Raises:
            ToolchainError: there is no adapter that can run the library.
            VerificationError: the library, or a kernel of it, can't do what it is asked for.
        """
        arrays = [np.ascontiguousarray(tensor) for tensor in tensors]
        described = [
            {"dtype": array.dtype.name, "shape": list(array.shape), "nbytes": array.nbytes}
            for array in arrays
        ]
        text = json.dumps({"operation": operation, "tensors": described, **fields}).encode()
        sizes = _SIZES.pack(len(text), sum(array.nbytes for array in arrays))
        message = b"".join([sizes, text, *(array.tobytes() for array in arrays)])
        with contextlib.suppress(OSError):  # if it ended, that shows when the answer is read
            self._socket.sendall(message)
        return self._receive(operation)

    def _receive(self, operation: str) -> Reply:
        text_size, payload_size = _SIZES.unpack(self._read(_SIZES.size, operation))
        fields = json.loads(bytes(self._read(text_size, operation)))
        payload = self._read(payload_size, operation)
        if not fields["ok"]:
            raise self._failure(fields)
        tensors, start = [], 0
        for item in fields.pop("tensors"):
            dtype, count = np.dtype(item["dtype"]), int(np.prod(item["shape"], dtype=np.int64))
            flat = np.frombuffer(payload, dtype, count, start)
            tensors.append(flat.reshape(item["shape"]))
            start += item["nbytes"]
        return Reply(fields, tensors)

    def _read(self, size: int, operation: str) -> bytearray:
        buffer = bytearray(size)
        got = 0
        while got < size:
            try:
                count = self._socket.recv_into(memoryview(buffer)[got:])
            except OSError:
                count = 0
            if not count:
                self._ended(operation)
            got += count
        return buffer

    def _ended(self, operation: str) -> NoReturn:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        reason = "; ".join(line.strip() for line in lines[-_MESSAGE_LINES:]) or f"status {code}"
        raise ToolchainError(
            f"Node.js ended in {operation} ({reason})",
            where=str(self._library),
            remedy="see whether the Vulkan driver works (vulkaninfo), or name another one in"
            " VK_DRIVER_FILES",
        )

    def _failure(self, fields: Mapping[str, Any]) -> EdgecError:
        if fields["kind"] == "adapter":
            return ToolchainError(
                fields["message"],
                where="webgpu",
                remedy="name the description of a Vulkan driver that has it in VK_DRIVER_FILES, or"
                " install lavapipe (Debian: apt-get install mesa-vulkan-drivers libvulkan1)",
            )
        # A library that throws can only stop; what it printed before says why.
        said = [line for text in fields["said"] for line in text.splitlines()]
        told = [line.strip() for line in said if not line.lstrip().startswith(_TRACE)]
        reason = "; ".join([*filter(None, told[-_MESSAGE_LINES:]), fields["message"]])
        return VerificationError(
            reason,
            where=str(self._library),
            remedy="this library would fail in a browser too; report it with the target's name",
        )


def _end(connection: socket.socket, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    # It ends by itself when nobody is at the other end, unless it waits for the device.
    connection.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
    if process.poll() is None:
        process.kill()
        process.wait()
    errors.close()
