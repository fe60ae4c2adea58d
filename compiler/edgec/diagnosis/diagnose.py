"""All checks, in the order in which one depends on another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.diagnosis.packages import (
    check_libraries,
    check_python,
    check_reference,
    check_runtime_packages,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from edgec.diagnosis.check import Check


def diagnose(targets: Sequence[str] = ()) -> Iterator[Check]:
    """Look at one thing after the other.

    Args:
        targets: names of targets to look at; none for this machine's.

    Yields:
        Each result as soon as it is known; some take a second. If a library is missing that the
        other checks stand on, they are left out.
    """
    yield check_python()
    yield from check_runtime_packages()
    libraries = check_libraries()
    yield libraries
    if libraries.state == "missing":
        return
    yield from _checks_with_libraries(targets)
    yield check_reference()


def _checks_with_libraries(targets: Sequence[str]) -> Iterator[Check]:
    # Imported here because they import the libraries that may be missing.
    from edgec.diagnosis import (  # noqa: PLC0415 - see above
        device_tools,
        hub,
        machine,
        storage,
        toolchain,
    )

    yield toolchain.check_tvm_loads()
    yield toolchain.check_c_compiler()
    if targets:
        for name in targets:
            yield machine.check_target(name)
        yield from device_tools.check_tools(targets)
    else:
        yield machine.check_host()
    yield machine.check_memory()
    yield storage.check_cache()
    yield hub.check_hub()
