"""What every engine's process does: answer one request after another, each a line of JSON.

Runs in the engines' own environments, with the standard library alone, on Linux. What an engine
gives is in :class:`Engine`.
"""

from __future__ import annotations

import ctypes
import json
import signal
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

_PARENT_DEATH_SIGNAL = 1  # Linux: an option of prctl
MARK = "@"
"""Begins the lines that are answers; engines print lines of their own."""


class Engine(Protocol):
    """A loaded model with room for one sequence, which chooses the most probable token."""

    def facts(self) -> dict[str, Any]:
        """What the tables name.

        ``version`` and ``settings`` are text. ``bytes`` are those of the weights that a token
        reads, ``position_bytes`` those of keys and values for each position of the context; 0 if
        the engine doesn't tell.
        """

    def prefill(self, tokens: list[int]) -> float:
        """Seconds from an empty sequence to the token chosen after a prompt."""

    def decode(self, tokens: list[int], count: int) -> float:
        """Seconds of ``count`` tokens, one by one, after a prompt and the token chosen after it."""

    def logits(self, tokens: list[int]) -> list[float] | None:
        """After the last token of a prompt; None where the engine doesn't give them."""


def serve(open_engine: Callable[[dict[str, Any]], Engine]) -> None:
    """Answer requests until there are no more.

    Args:
        open_engine: loads the model that a request names.
    """
    # A stopped process doesn't notice that nobody is left who would wake it.
    ctypes.CDLL(None).prctl(_PARENT_DEATH_SIGNAL, int(signal.SIGKILL))
    engine: Engine | None = None
    for line in sys.stdin:
        request = json.loads(line)
        operation = request.pop("operation")
        try:
            if operation == "open":
                started = time.monotonic()
                engine = open_engine(request)
                loaded = time.monotonic()
                engine.prefill([1])
                answer = {
                    "load": loaded - started,
                    "start": time.monotonic() - request["spawned"],
                    **engine.facts(),
                }
            else:
                answer = {"result": getattr(engine, operation)(**request)}
        except Exception as error:  # noqa: BLE001 - reported in the table, whatever it is
            traceback.print_exc()
            text = str(error).strip() or type(error).__name__
            answer = {"error": text.splitlines()[0]}
        sys.stdout.write(f"\n{MARK}{json.dumps(answer)}\n")
        sys.stdout.flush()
