"""Models of the hub, against a server on this machine that speaks as much of its API as we use.

The client library reads its environment when it is imported, so each test runs it in a process of
its own with the server as ``HF_ENDPOINT``.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import safetensors.numpy

from edgec.checkpoints.hub_errors import explain

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
WEIGHTS = {
    FIRST: safetensors.numpy.save({"a": np.arange(6, dtype=np.float32).reshape(3, 2)}),
    SECOND: safetensors.numpy.save({"b": np.ones(4, np.float16)}),
}
INDEX = json.dumps({"weight_map": {"a": FIRST, "b": SECOND}}).encode()
REPOSITORIES: dict[str, dict[str, bytes]] = {
    "org/sharded": {
        "config.json": b'{"model_type": "llama"}',
        "model.safetensors.index.json": INDEX,
        **WEIGHTS,
        "tokenizer.json": b"{}",
        "consolidated.safetensors": b"a second copy of the weights",
        "onnx/model.safetensors": b"another copy",
        "pytorch_model.bin": b"pickle",
        "README.md": b"hello",
    },
    "org/single": {"config.json": b"{}", "model.safetensors": WEIGHTS[FIRST]},
    "org/pickle": {"config.json": b"{}", "pytorch_model.bin": b"pickle"},
    "org/data": {"README.md": b"no model"},
}
# What the hub answers for a repository: status and X-Error-Code.
REFUSALS = {
    "org/private": (401, "RepoNotFound"),
    "org/gated": (403, "GatedRepo"),
    "org/forbidden": (403, ""),
    "org/absent": (404, "RepoNotFound"),
}


class Hub(BaseHTTPRequestHandler):
    requested: list[str]

    def do_HEAD(self) -> None:
        self.answer(*self.find(), body=False)

    def do_GET(self) -> None:
        self.answer(*self.find(), body=True)

    def find(self) -> tuple[int, dict[str, str], bytes]:
        path = self.path.split("?")[0].strip("/").removeprefix("api/models/")
        self.requested.append(path)
        org, name, *rest = path.split("/")
        repository = f"{org}/{name}"
        if repository in REFUSALS:
            status, code = REFUSALS[repository]
            return status, {"X-Error-Code": code}, b"{}"
        files = REPOSITORIES[repository]
        verb, revision = rest[0], rest[1]
        if revision not in ("main", COMMIT):
            return 404, {"X-Error-Code": "RevisionNotFound"}, b"{}"
        if verb == "revision":
            siblings = [{"rfilename": file} for file in files]
            return (
                200,
                {},
                json.dumps({"id": repository, "sha": COMMIT, "siblings": siblings}).encode(),
            )
        if verb == "tree":
            return (
                200,
                {},
                json.dumps(
                    [
                        {"type": "file", "path": file, "size": len(content), "oid": digest(content)}
                        for file, content in files.items()
                    ]
                ).encode(),
            )
        content = files["/".join(rest[2:])]
        return 200, {"ETag": f'"{digest(content)}"', "X-Repo-Commit": COMMIT}, content

    def answer(self, status: int, headers: dict[str, str], content: bytes, *, body: bool) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(content))}.items():
            self.send_header(name, value)
        self.end_headers()
        if body:
            self.wfile.write(content)

    def log_message(self, *args: Any) -> None:
        pass


def digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:40]


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    requested: list[str] = []
    handler = type("Handler", (Hub,), {"requested": requested})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", requested
        server.shutdown()
        thread.join()


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address where nobody listens: the port is taken but not open."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{taken.getsockname()[1]}"


PROGRAM = """
import json, sys
from pathlib import Path
from edgec.checkpoints import open_checkpoint, open_source
from edgec.errors import EdgecError

def result(step, source):
    try:
        if step == "config":
            model = open_source(source, Path())
            return [model.config, model.hub.commit, sorted(p.name for p in model.folder.iterdir())]
        checkpoint = open_checkpoint(source, Path())
        names = {n: checkpoint.rows(n, 0, 2).ravel().tolist() for n in checkpoint.names()}
        return [names, sorted(p.name for p in checkpoint.folder.iterdir())]
    except EdgecError as error:
        return [error.kind, str(error)]

print(json.dumps([result(step, source) for step, source in json.loads(sys.argv[1])]))
"""


def run(endpoint: str, home: Path, *steps: tuple[str, str], **environment: str) -> list[Any]:
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGINGFACE"))}
    inherited |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    # A proxy of the machine is none of this test's business.
    inherited |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, json.dumps(steps)],
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    # No progress bars: they would tear up our own.
    assert "%|" not in done.stderr
    results: list[Any] = json.loads(done.stdout)
    return results


def test_download_then_work_from_the_cache(
    hub: tuple[str, list[str]], nowhere: str, tmp_path: Path
) -> None:
    endpoint, requested = hub
    config, weights = "config.json", ["tokenizer.json", FIRST, SECOND]
    small = [config, "model.safetensors.index.json"]
    [first] = run(endpoint, tmp_path, ("config", "hf:org/sharded@main"))
    assert first == [{"model_type": "llama"}, COMMIT, sorted(small)]
    assert not [path for path in requested if path.endswith(".safetensors")]

    single = [("weights", "hf:org/single"), ("weights", f"hf:org/single@{COMMIT}")]
    sharded, *others = run(endpoint, tmp_path, ("weights", "hf:org/sharded@main"), *single)
    assert sharded == [{"a": [0, 1, 2, 3], "b": [1, 1]}, sorted(small + weights)]
    assert others == 2 * [[{"a": [0, 1, 2, 3]}, [config, "model.safetensors"]]]

    again = run(endpoint, tmp_path, ("weights", "hf:org/sharded@main"), *single, HF_HUB_OFFLINE="1")
    assert again == [sharded, *others]
    unreachable = run(nowhere, tmp_path, ("weights", "hf:org/sharded@main"))
    assert unreachable == [sharded]


def test_refusals_of_the_hub(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    endpoint, _ = hub
    expected = {
        "org/private@main": "the hub has no such model, or it is private; check the name; for a",
        "org/absent@main": "the hub has no such model, or it is private; check the name; for a",
        "org/gated@main": f"restrict access to it; accept their terms at {endpoint}/org/gated and",
        "org/forbidden@main": "the hub refuses access (HTTP 403); set HF_TOKEN to a token that may",
        "org/single@v9": "the model has no revision v9; name one of its branches, tags or commits",
        "org/data@main": "the repository has no config.json; name a repository with a model",
        "org/pickle@main": "no weights as safetensors (model.safetensors); look for a safetensors",
    }
    results = run(endpoint, tmp_path, *(("weights", f"hf:{source}") for source in expected))
    for (source, message), (kind, text) in zip(expected.items(), results, strict=True):
        assert kind == "checkpoint"
        assert text.startswith(f"hf:{source}: ")
        assert message in text


def test_no_network_and_nothing_in_the_cache(nowhere: str, tmp_path: Path) -> None:
    step = ("config", "hf:org/single@main")
    [[kind, text]] = run(nowhere, tmp_path, step)
    assert kind == "checkpoint"
    assert f"the hub at {nowhere} can't be reached and the model is not in the local cache" in text
    [[kind, text]] = run(nowhere, tmp_path, step, HF_HUB_OFFLINE="1")
    assert kind == "checkpoint"
    assert "HF_HUB_OFFLINE forbids downloading it; unset HF_HUB_OFFLINE or give a folder" in text


def test_cache_that_can_not_be_written(hub: tuple[str, list[str]], tmp_path: Path) -> None:
    # A file where a folder belongs stops root too, which a permission would not.
    (tmp_path / "hub").write_text("")
    [[kind, text]] = run(hub[0], tmp_path, ("config", "hf:org/single@main"))
    assert kind == "checkpoint"
    assert "can't be stored" in text
    assert f"check space and permissions of {tmp_path / 'hub'}, or set HF_HOME" in text


class _ResponseError(Exception):
    def __init__(self, status: int) -> None:
        self.response = type("Response", (), {"status_code": status})()


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (_ResponseError(401), "doesn't accept the token (HTTP 401); set HF_TOKEN to a valid token"),
        (_ResponseError(429), "limits how often it is asked (HTTP 429); set HF_TOKEN or try again"),
        (_ResponseError(503), "the hub answered with HTTP 503; try again later"),
        (OSError(28, "No space left on device"), "can't be stored (No space left on device)"),
        (ConnectionResetError(104, "Connection reset by peer"), "failed (ConnectionResetError: "),
        (RuntimeError(), "failed (RuntimeError: no reason given); try again"),
        (ValueError("first\nsecond {cache}"), "failed (ValueError: first); try again"),
    ],
)
def test_other_failures(error: Exception, message: str) -> None:
    pytest.importorskip("huggingface_hub")
    explained = explain(error, "org/name", "main")
    assert explained.where == "hf:org/name@main"
    assert message in str(explained)
