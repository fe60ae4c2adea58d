"""An HTTP server for this machine alone: files under addresses, for browsers that stand in."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING
from urllib.parse import unquote, urlsplit

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".svg": "image/svg+xml",
    ".png": "image/png",
}
_OTHER = "application/octet-stream"
_RANGE = re.compile(r"bytes=(\d*)-(\d*)")
_PIECE = 1 << 20


class FileServer(ThreadingHTTPServer):
    """Serves files until it is closed; see :func:`serve`.

    Attributes:
        requests: what was asked for, in order: method, path and status.
    """

    daemon_threads = True

    def __init__(self, places: Mapping[str, Path]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        # The longest address that fits is the one that counts.
        self._places = sorted(places.items(), key=lambda item: -len(item[0]))
        self.requests: list[tuple[str, str, int]] = []

    @property
    def url(self) -> str:
        """Its address, ending in ``/``."""
        # A page of localhost may use WebGPU, and WebLLM keeps no library of localhost.
        return f"http://localhost:{self.server_port}/"

    def find(self, path: str) -> Path | None:
        """The file under an address, ``/`` first; None if there is none."""
        for prefix, place in self._places:
            if path == prefix and place.is_file():
                return place
            if not (prefix.endswith("/") and path.startswith(prefix)):
                continue
            parts = PurePosixPath(path[len(prefix) :] or "index.html").parts
            if ".." in parts or any(os.sep in part for part in parts):
                return None
            found = place.joinpath(*parts)
            return found if found.is_file() else None
        return None


@contextlib.contextmanager
def serve(places: Mapping[str, Path]) -> Iterator[FileServer]:
    """Serve files within the context.

    Args:
        places: folders by addresses that end in ``/``, files by whole addresses; ``/`` itself is
            ``index.html`` of its folder. Files may be asked for in parts. Nothing is to be kept.
    """
    server = FileServer(places)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FileServer

    def do_GET(self) -> None:
        self._answer(body=True)

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def log_message(self, *_: object) -> None:
        """Nothing: what was asked for is in ``FileServer.requests``."""

    def _answer(self, *, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        found = self.server.find(path)
        if found is None:
            self._begin(HTTPStatus.NOT_FOUND, 0)
            return
        with found.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            start, end, status = _part(self.headers.get("Range"), size)
            if status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
                self._begin(status, 0, {"Content-Range": f"bytes */{size}"})
                return
            headers = {"Content-Type": _TYPES.get(found.suffix, _OTHER), "Accept-Ranges": "bytes"}
            if status == HTTPStatus.PARTIAL_CONTENT:
                headers["Content-Range"] = f"bytes {start}-{end - 1}/{size}"
            self._begin(status, end - start, headers)
            # A browser that was closed takes no more bytes.
            with contextlib.suppress(ConnectionError):
                if body:
                    self._send(file, start, end)

    def _begin(
        self, status: HTTPStatus, length: int, headers: Mapping[str, str] | None = None
    ) -> None:
        self.server.requests.append((self.command, self.path, int(status)))
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        self.send_header("Cache-Control", "no-store")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        with contextlib.suppress(ConnectionError):
            self.end_headers()

    def _send(self, file: IO[bytes], start: int, end: int) -> None:
        file.seek(start)
        while start < end:
            piece = file.read(min(_PIECE, end - start))
            if not piece:
                break
            self.wfile.write(piece)
            start += len(piece)


def _part(wanted: str | None, size: int) -> tuple[int, int, HTTPStatus]:
    """The bytes that a ``Range`` header asks for, and the status of the answer."""
    match = _RANGE.fullmatch((wanted or "").strip())
    if match is None or match.groups() == ("", ""):
        return 0, size, HTTPStatus.OK
    first, last = match.groups()
    start, end = (int(first), int(last or size)) if first else (max(0, size - int(last)), size)
    if first and last:
        end += 1
    if start >= size or start >= end:
        return 0, 0, HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE
    return start, min(end, size), HTTPStatus.PARTIAL_CONTENT
