"""A running guest: starts it, calls functions, and tells how it ended."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import weakref
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, NoReturn

from edgec.errors import EdgecError, VerificationError
from edgec.standins.guest import wire

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from edgec.standins.guest.program import Runner

_FIRST_READ = 1 << 16
_MESSAGE_LINES = 4


@dataclass(frozen=True)
class Hosting:
    """What a guest serves, and how.

    Attributes:
        library: names the library in messages.
        image: a shared object with its host code, for the guest's processor.
        prefix: of the library's symbols.
        device: type of the device that the library's tensors are on, as DLPack numbers them.
        tasks: into which a parallel loop is divided; they run one after the other.
        arena: descriptor and address of device memory that the host code may touch; None for
            libraries whose kernels alone touch it.
    """

    library: Path
    image: Path
    prefix: str
    device: int
    tasks: int
    arena: tuple[int, int] | None


@dataclass(frozen=True)
class Reply:
    """What a call did.

    Attributes:
        launches: kernels that it launched, in order; they have not run.
        value: of the function, as 16 bytes of TVM's.
        contents: of tensors in this process afterwards, each padded to 8 bytes.
    """

    launches: list[wire.Launch]
    value: bytes
    contents: memoryview


class Guest:
    """Runs functions of one library in another process. Not thread-safe.

    Args:
        program: the guest for the library's processor.
        runner: what runs it on this machine.
        hosting: what it serves.

    Raises:
        VerificationError: the library can't be loaded.
    """

    def __init__(self, program: Path, runner: Runner, hosting: Hosting) -> None:
        self._hosting = hosting
        self._processor = runner.processor
        self._buffer = bytearray(_FIRST_READ)
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed by _end
        ours, theirs = socket.socketpair()
        self._socket = ours
        arena, start = hosting.arena or (-1, 0)
        with theirs:
            shared = [theirs.fileno(), *([arena] if hosting.arena else [])]
            self._process = subprocess.Popen(
                [
                    *(*runner.command, str(program), str(theirs.fileno())),
                    *(str(hosting.image.absolute()), hosting.prefix, str(hosting.device)),
                    *(str(hosting.tasks), str(arena), hex(start)),
                ],
                pass_fds=shared,
                stdin=subprocess.DEVNULL,
                # What the library prints has no place in this program's output.
                stdout=self._errors,
                stderr=self._errors,
                # Fresh workspace holds no zeros, as on a device.
                env={**os.environ, "MALLOC_PERTURB_": "85"},
            )
        self._finish = weakref.finalize(self, _end, ours, self._process, self._errors)
        self._symbols: list[str] = []
        self._receive("loading the library")

    def close(self) -> None:
        """End the guest."""
        self._finish()

    def resolve(self, symbol: str) -> int:
        """The number of a function, counted from zero in the order of these calls.

        Raises:
            VerificationError: the library has no such function.
        """
        doing = f"looking for {symbol}"
        self._send(wire.resolve_request(symbol), doing)
        *_, number = wire.REPLY.unpack_from(self._receive(doing))
        if number == 2**64 - 1:
            raise VerificationError(
                f"the library has no function {symbol}", where=str(self._hosting.library)
            )
        self._symbols.append(symbol)
        return int(number)

    def call(self, request: bytes, allocate: Callable[[int], int]) -> Reply:
        """Call a function.

        Args:
            request: as ``src/protocol.h`` lays it out.
            allocate: gives the function device memory: bytes to address.

        Raises:
            VerificationError: the function raised an error, or the guest crashed.
        """
        symbol = self._symbols[wire.REQUEST.unpack_from(request)[2]]
        self._send(request, symbol)
        while True:
            reply = self._receive(symbol)
            _, status, count, _, _, _, bits = wire.REPLY.unpack_from(reply)
            if status != wire.WANT_MEMORY:
                break
            self._send(wire.memory_answer(allocate(bits)), symbol)
        if status == wire.RAISED:
            kind, message = wire.read_raised(reply)
            raise self._error(f"{symbol} raised {kind or 'an error'}: {message or 'no message'}")
        launches, at = wire.read_launches(reply, count)
        value = bytes(reply[wire.VALUE_OFFSET : wire.REPLY.size])
        # The buffer is filled anew by the next reply.
        return Reply(launches, value, memoryview(bytes(reply[at:])))

    def _send(self, message: bytes, doing: str) -> None:
        try:
            self._socket.sendall(message)
        except OSError:
            # If it could say why it ended, that is there to be read.
            self._receive(doing)
            self._ended(doing)

    def _receive(self, doing: str) -> memoryview:
        """A reply; of the bytes that it has."""
        got = self._read(0, doing)
        while got < wire.REPLY.size:
            got += self._read(got, doing)
        size, status, *_ = wire.REPLY.unpack_from(self._buffer)
        if size > len(self._buffer):
            self._buffer.extend(bytes(size - len(self._buffer)))
        while got < size:
            got += self._read(got, doing)
        reply = memoryview(self._buffer)[:size]
        if status == wire.FAULT:
            raise self._error(self._describe(wire.read_fault(reply), doing))
        return reply

    def _read(self, start: int, doing: str) -> int:
        try:
            got = self._socket.recv_into(memoryview(self._buffer)[start:])
        except OSError:
            got = 0
        if not got:
            self._ended(doing)
        return got

    def _ended(self, doing: str) -> NoReturn:
        code = self._process.wait()
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        reason = "; ".join(lines[-_MESSAGE_LINES:])
        if not reason:
            reason = _signal_name(-code) if code < 0 else f"exit status {code}"
        raise self._error(f"the host code ended while {_gerund(doing)} ({reason})")

    def _describe(self, fault: wire.Fault, doing: str) -> str:
        place = (
            f"at offset {fault.library_offset:#x} of the library"
            if fault.library_offset is not None
            else f"at {fault.instruction:#x}, outside the library"
        )
        what = _signal_name(fault.signal)
        if fault.signal == signal.SIGILL:
            what += f": an instruction that the processor {self._processor} doesn't have"
        elif fault.signal in {signal.SIGSEGV, signal.SIGBUS}:
            what += f": access to {fault.address:#x}"
        return f"the host code crashed while {_gerund(doing)} ({what}, {place})"

    def _error(self, what: str) -> EdgecError:
        return VerificationError(
            what,
            where=str(self._hosting.library),
            remedy="this library would fail on a device too; report it with the target's name",
        )


def _gerund(doing: str) -> str:
    return doing if " " in doing else f"running {doing}"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _end(connection: socket.socket, process: subprocess.Popen[bytes], errors: IO[bytes]) -> None:
    # It ends by itself when nobody is at the other end, unless a function of it loops for ever.
    connection.close()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=0.5)
    if process.poll() is None:
        process.kill()
        process.wait()
    errors.close()
