"""Bring an exception of ours unchanged through TVM's C++ frames.

TVM turns an exception of Python into an error with a kind and a text, and on the way back makes an
exception of the class that is registered for the kind. The class that registers here gives the
exception that was raised.
"""

from __future__ import annotations

import functools
import itertools

_KIND = "EdgecCarried"
_numbers = itertools.count()
# Only the last one can be on its way: Python's frames above C++'s see it before they raise another.
_last: tuple[str, BaseException] | None = None


class Carried(Exception):  # noqa: N818 - a vehicle, never seen as an error
    """Stands for an exception while C++ frames are unwound."""

    def __new__(cls, message: str) -> BaseException:  # type: ignore[misc]
        """The exception that a number stands for: TVM calls this on the way back."""
        if _last is not None and _last[0] == message.strip():
            return _last[1]
        return super().__new__(cls, message)


def carry(error: Exception) -> BaseException:
    """What to raise in a function that C++ calls, so that its caller sees ``error``."""
    global _last  # noqa: PLW0603 - there is one stack that is unwound
    _register()
    number = str(next(_numbers))
    _last = None
    carried = Carried(number)
    _last = (number, error)
    return carried


@functools.cache
def _register() -> None:
    from tvm_ffi import core  # noqa: PLC0415 - loaded with TVM

    core.ERROR_TYPE_TO_NAME[Carried] = _KIND
    core.ERROR_NAME_TO_TYPE[_KIND] = Carried
