"""The one error family: what the user sees, and the exit code the shell sees.

An ``EdgecError`` is for bad input or a failed environment. It names the input (``where``), what
was wrong (``what``) and what to do (``remedy``), and prints as one sentence. A broken invariant
of our own is an ``AssertionError`` and keeps its traceback.
"""

from __future__ import annotations

from typing import ClassVar


class EdgecError(Exception):
    """A failure with a cause the user can act on.

    Args:
        what: what was wrong, without a full stop.
        where: the input it was found in: a file, ``file:line:column``, an option or a name.
        remedy: what to do about it, as an imperative clause without a full stop.
    """

    exit_code: ClassVar[int] = 1
    kind: ClassVar[str] = "build"

    def __init__(self, what: str, *, where: str = "", remedy: str = "") -> None:
        self.what = what
        self.where = where
        self.remedy = remedy
        super().__init__(str(self))

    def __str__(self) -> str:
        text = f"{self.where}: {self.what}" if self.where else self.what
        return f"{text}; {self.remedy}" if self.remedy else text

    def to_json(self) -> dict[str, str]:
        """The error as plain data, so that it can cross a process boundary."""
        return {"kind": self.kind, "what": self.what, "where": self.where, "remedy": self.remedy}

    @staticmethod
    def from_json(data: dict[str, str]) -> EdgecError:
        """The inverse of :meth:`to_json`; an unknown kind becomes a plain build error."""
        cls = _by_kind(data["kind"])
        return cls(data["what"], where=data["where"], remedy=data["remedy"])


class BuildError(EdgecError):
    """A stage failed: the compiler, the file system or a time limit."""

    kind = "build"


class CheckpointError(EdgecError):
    """The model's weights or its config are missing, damaged or of the wrong shape."""

    kind = "checkpoint"


class UsageError(EdgecError):
    """A recipe, a target profile or an option that can't be accepted as written."""

    exit_code = 2
    kind = "usage"


class UnsupportedModelError(EdgecError):
    """An architecture, or a feature of one, that edgec has no code for."""

    exit_code = 3
    kind = "unsupported"


class ToolchainError(EdgecError):
    """Something that has to be installed, or a CPU feature this machine lacks."""

    exit_code = 4
    kind = "toolchain"


class VerificationError(EdgecError):
    """Outputs that differ from the reference, a digest that doesn't match, or a broken budget."""

    exit_code = 5
    kind = "verification"


class CacheError(EdgecError):
    """The stage store is unusable: no permission, foreign files, or damaged entries."""

    exit_code = 6
    kind = "cache"


def _by_kind(kind: str) -> type[EdgecError]:
    for cls in EdgecError.__subclasses__():
        if cls.kind == kind:
            return cls
    return BuildError
