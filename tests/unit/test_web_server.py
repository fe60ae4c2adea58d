"""The server of the browser's stand-in: what it serves, as what, and what it keeps to itself."""

from __future__ import annotations

from http.client import HTTPConnection
from typing import TYPE_CHECKING

import pytest

from edgec.standins.webllm.server import FileServer, serve

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BYTES = bytes(range(256)) * 4


@pytest.fixture
def server(tmp_path: Path) -> Iterator[FileServer]:
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "index.html").write_text("<p>")
    (tmp_path / "page" / "code.js").write_text("1")
    (tmp_path / "secret").write_text("no")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "shard 0.bin").write_bytes(BYTES)
    (tmp_path / "some.wasm").write_bytes(b"\0asm")
    places = {
        "/": tmp_path / "page",
        "/w/": tmp_path / "weights",
        "/lib/m.wasm": tmp_path / "some.wasm",
    }
    with serve(places) as running:
        yield running


def get(
    server: FileServer, path: str, method: str = "GET", **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    try:
        connection.request(method, path, headers=headers)
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/", "text/html; charset=utf-8"),
        ("/code.js?x=1", "text/javascript; charset=utf-8"),
        ("/lib/m.wasm", "application/wasm"),
        ("/w/shard%200.bin", "application/octet-stream"),
    ],
)
def test_files_have_the_type_that_browsers_insist_on(
    path: str, kind: str, server: FileServer
) -> None:
    status, headers, body = get(server, path)
    assert status == 200
    assert headers["Content-Type"] == kind
    assert headers["Cache-Control"] == "no-store"
    assert int(headers["Content-Length"]) == len(body) > 0
    assert server.requests == [("GET", path, 200)]


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        ("bytes=0-9", (0, 10)),
        ("bytes=1000-", (1000, 1024)),
        ("bytes=-24", (1000, 1024)),
        ("bytes=1020-5000", (1020, 1024)),
        ("bytes=7-7", (7, 8)),
    ],
)
def test_parts_are_answered(wanted: str, expected: tuple[int, int], server: FileServer) -> None:
    start, end = expected
    status, headers, body = get(server, "/w/shard%200.bin", Range=wanted)
    assert status == 206
    assert body == BYTES[start:end]
    assert headers["Content-Range"] == f"bytes {start}-{end - 1}/1024"


@pytest.mark.parametrize("wanted", ["bytes=-", "lines=1-2", "bytes=0-1,5-6"])
def test_what_isnt_understood_is_answered_whole(wanted: str, server: FileServer) -> None:
    status, _, body = get(server, "/w/shard%200.bin", Range=wanted)
    assert (status, body) == (200, BYTES)


@pytest.mark.parametrize("wanted", ["bytes=1024-", "bytes=9-3", "bytes=-0"])
def test_a_part_that_isnt_there_is_refused(wanted: str, server: FileServer) -> None:
    status, headers, body = get(server, "/w/shard%200.bin", Range=wanted)
    assert (status, body) == (416, b"")
    assert headers["Content-Range"] == "bytes */1024"


def test_head_has_no_body(server: FileServer) -> None:
    status, headers, body = get(server, "/w/shard%200.bin", "HEAD")
    assert (status, headers["Content-Length"], body) == (200, "1024", b"")


@pytest.mark.parametrize(
    "path", ["/../secret", "/%2e%2e/secret", "/w/..%2fsecret", "/none", "/w/", "/lib/"]
)
def test_nothing_else_is_served(path: str, server: FileServer) -> None:
    status, _, body = get(server, path)
    assert (status, body) == (404, b"")
    assert server.requests[-1][2] == 404


def test_only_this_machine_is_served(server: FileServer) -> None:
    assert server.server_address[0] == "127.0.0.1"
    assert server.url == f"http://localhost:{server.server_port}/"
