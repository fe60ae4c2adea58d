"""How long work reports that it is getting on, without knowing who listens.

Stages call a ``Progress``; the worker turns the calls into events on a pipe and the CLI turns
the events into a bar on a terminal, plain lines elsewhere, or NDJSON.
"""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Receives the steps of one stage. Every method may be called from any thread."""

    def start(self, total: int, unit: str) -> None:
        """Begin counting: ``total`` in ``unit`` (``"bytes"``, ``"tensors"``, ``"tokens"``)."""

    def advance(self, amount: int) -> None:
        """``amount`` more units are done."""

    def note(self, text: str) -> None:
        """One line about what happens now, such as the pass that runs."""


class Silent:
    """A ``Progress`` that nobody listens to, for tests and library use."""

    def start(self, total: int, unit: str) -> None:
        """Do nothing."""

    def advance(self, amount: int) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""
