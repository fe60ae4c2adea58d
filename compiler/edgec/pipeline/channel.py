"""The worker's end of the pipe on which it reports: one JSON object per line."""

from __future__ import annotations

import json
import os
import threading
import time
from typing import Any

_INTERVAL_S = 0.05


class Channel:
    """Writes events to the file descriptor of a pipe; for any number of threads."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._lock = threading.Lock()

    def send(self, event: dict[str, Any]) -> None:
        """Write one event as a line."""
        data = memoryview(json.dumps(event).encode() + b"\n")
        with self._lock:
            while data:
                data = data[os.write(self._descriptor, data) :]


class ChannelProgress:
    """A ``Progress`` that sends what it is told, steps at most 20 times a second.

    Steps in between are added up, so that none is lost.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._lock = threading.Lock()
        self._pending = 0
        self._sent_at = 0.0

    def start(self, total: int, unit: str) -> None:
        """See :class:`edgec.progress.Progress`."""
        self.flush()
        self._channel.send({"event": "progress", "total": int(total), "unit": unit})

    def advance(self, amount: int) -> None:
        """See :class:`edgec.progress.Progress`."""
        with self._lock:
            self._pending += int(amount)
            if time.monotonic() - self._sent_at < _INTERVAL_S:
                return
        self.flush()

    def note(self, text: str) -> None:
        """See :class:`edgec.progress.Progress`."""
        self.flush()
        self._channel.send({"event": "note", "text": text})

    def flush(self) -> None:
        """Send the steps that were held back."""
        with self._lock:
            amount, self._pending = self._pending, 0
            self._sent_at = time.monotonic()
        if amount:
            self._channel.send({"event": "advance", "amount": amount})
