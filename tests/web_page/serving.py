"""A server of static files below a path, whose connections break where a test wants it."""

from __future__ import annotations

import contextlib
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


class Server(ThreadingHTTPServer):
    """Serves a folder.

    Attributes:
        asked: names of the files that were asked for.
        hooks: what is done when a path is asked for.
        broken: names of files of which half is sent.
        pages: names of files in whose place a web page is sent.
    """

    daemon_threads = True

    def __init__(self, folder: Path, prefix: str) -> None:
        self.prefix = prefix
        self.asked: list[str] = []
        self.hooks: dict[str, Callable[[], None]] = {}
        self.broken: set[str] = set()
        self.pages: set[str] = set()
        super().__init__(("127.0.0.1", 0), partial(_Handler, directory=str(folder)))

    @property
    def origin(self) -> str:
        """Where all of its addresses begin."""
        return f"http://127.0.0.1:{self.server_port}"

    @property
    def url(self) -> str:
        """The address of the folder."""
        return f"{self.origin}{self.prefix}"


@contextlib.contextmanager
def serving(folder: Path, prefix: str = "/") -> Iterator[Server]:
    """Serve a folder, which may be changed meanwhile."""
    with Server(folder, prefix) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}).start()
        try:
            yield server
        finally:
            server.shutdown()


class _Handler(SimpleHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        """Nothing."""

    def end_headers(self) -> None:
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def translate_path(self, path: str) -> str:
        return super().translate_path("/" + path.removeprefix(self.server.prefix))

    def do_GET(self) -> None:
        name = self.path.split("?")[0].rsplit("/", 1)[-1]
        self.server.asked.append(name)
        if name in self.server.hooks:
            self.server.hooks[name]()
            self.send_response(204)
            self.end_headers()
        elif not self.path.startswith(self.server.prefix):
            self.send_error(404)
        elif name in self.server.broken:
            self.send_response(200)
            self.send_header("Content-Length", "1000000")
            self.end_headers()
            self.wfile.write(bytes(1000))
        elif name in self.server.pages:
            self.path = self.server.prefix
            super().do_GET()
        else:
            super().do_GET()
