"""A library whose bytecode runs here, whose host functions run in a guest."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from edgec.standins.device.failures import carry
from edgec.standins.device.sidecar import host_functions
from edgec.standins.guest import wire
from edgec.standins.guest.tensors import Tensor

if TYPE_CHECKING:
    from edgec.libraries.open import LibraryFile
    from edgec.standins.device.launching import Launcher
    from edgec.standins.guest.process import Reply


@dataclass(frozen=True)
class HostCall:
    """A call of a host function.

    Attributes:
        name: as the bytecode calls it.
        arguments: in order. Tensors show the memory before the call, and what it left there
            afterwards.
    """

    name: str
    arguments: Sequence[wire.Argument]

    @property
    def tensors(self) -> list[Tensor]:
        """The tensors among the arguments."""
        return [item for item in self.arguments if isinstance(item, Tensor)]

    @property
    def scalars(self) -> list[int | float | bool | None]:
        """The other arguments."""
        return [item for item in self.arguments if not isinstance(item, Tensor)]


Observer: TypeAlias = Callable[[HostCall, Callable[[], None]], None]
"""Called in place of every host function; has to call its second argument, which runs it."""


class HostCode(Protocol):
    """Runs the host functions of a library, as :class:`edgec.standins.guest.process.Guest` does."""

    def resolve(self, symbol: str) -> int:
        """The number of a function, counted from zero in the order of these calls."""

    def call(self, request: bytes, allocate: Callable[[int], int]) -> Reply:
        """Call a function; ``allocate`` gives it device memory: bytes to address."""


class Memory(Protocol):
    """Where workspace of host functions comes from."""

    def allocate(self, size: int) -> int:
        """Address of new memory for ``size`` bytes."""

    def free(self, address: int) -> None:
        """Give it back."""


class HostFunctions:
    """Answers the calls that bytecode makes.

    Args:
        library: whose functions they are.
        guest: runs them.
        memory: of the device that kernels work on.
        launcher: executes the kernels that they launch; None for libraries without any.
        observer: is shown every call.
    """

    def __init__(
        self,
        library: LibraryFile,
        guest: HostCode,
        memory: Memory,
        launcher: Launcher | None,
        observer: Observer | None,
    ) -> None:
        self._names = library.host_functions
        self._guest = guest
        self._launcher = launcher
        self._observer = observer
        self._memory = memory
        for name in self._names:
            guest.resolve(library.host_symbol(name))

    def answer(self, number: int, request: bytes) -> bytes:
        """Run a function; see :func:`edgec.standins.device.sidecar.host_functions`."""
        try:
            return self._answer(self._names[number], bytes(request))
        except Exception as error:
            raise carry(error) from error

    def _answer(self, name: str, request: bytes) -> bytes:
        if self._observer is None:
            return self._run(request, None)
        call = HostCall(name, wire.read_arguments(request))
        answers = []
        self._observer(call, lambda: answers.append(self._run(request, call.arguments)))
        assert len(answers) == 1, f"the observer ran {name} {len(answers)} times"
        return answers[0]

    def _run(self, request: bytes, arguments: Sequence[wire.Argument] | None) -> bytes:
        workspace: dict[int, int] = {}

        def allocate(size: int) -> int:
            address = self._memory.allocate(size)
            workspace[address] = size
            return address

        try:
            reply = self._guest.call(request, allocate)
            if reply.launches:
                assert self._launcher is not None, "a library without kernels launched one"
                if arguments is None:
                    arguments = wire.read_arguments(request)
                tensors = [item for item in arguments if isinstance(item, Tensor)]
                for launch in reply.launches:
                    self._launcher.launch(launch, tensors, workspace)
            if arguments is not None:
                wire.return_contents(arguments, reply.contents)
        finally:
            for address in workspace:
                self._memory.free(address)
        return reply.value + bytes(reply.contents)


def open_machine(
    library: LibraryFile, functions: HostFunctions, device: Any, device_type: int, *, fresh: bool
) -> Any:
    """The virtual machine of a library.

    Args:
        library: its bytecode is loaded.
        functions: answers what the bytecode calls.
        device: the TVM device that it runs on.
        device_type: as which the library sees that device, as DLPack numbers them.
        fresh: whether memory for intermediate results is allocated anew every time, and not
            reused.
    """
    import tvm  # noqa: PLC0415 - the device comes from it
    from tvm.relax import VirtualMachine  # noqa: PLC0415

    load = tvm.get_global_func("ffi.Module.load_from_bytes.relax.VMExecutable")
    executable = load(library.bytecode)
    executable.import_module(
        host_functions(
            library.host_functions,
            library.prefix,
            functions.answer,
            device.dlpack_device_type(),
            device_type,
        )
    )
    return VirtualMachine(executable, device, "naive" if fresh else "pooled")
