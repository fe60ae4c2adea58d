"""The page of a package, opened in Chromium."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from edgec.errors import EdgecError
from edgec.standins import webllm
from edgec.standins.npm import node, npm_folder
from edgec.standins.webllm.browser import find_browser

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).parent
ENGINE = HERE / "web_llm.js"
# An adapter as the page looks at it, so that its features don't depend on this machine's.
_ADAPTER = """
const limits = {
  maxBufferSize: 2 ** 31, maxStorageBufferBindingSize: BINDING,
  maxComputeWorkgroupStorageSize: 32768, maxStorageBuffersPerShaderStage: STORAGE,
};
const info = { vendor: "acme", architecture: "gpu", description: "" };
const adapter = { limits, info, features: new Set(FEATURES) };
Object.defineProperty(navigator, "gpu", { value: { requestAdapter: async () => adapter } });
"""


@dataclass(frozen=True)
class Seen:
    """What a browser has seen.

    Attributes:
        found: what the steps ``text``, ``value`` and ``evaluate`` gave, in order.
        said: what was written to the page's console.
        requests: addresses that the page asked for; the worker's aren't among them.
    """

    found: list[Any]
    said: list[str]
    requests: list[str]


def adapter(
    features: Sequence[str] = ("shader-f16",), binding: int = 1 << 31, storage: int = 10
) -> str:
    """A script that gives the page this adapter."""
    values = {"BINDING": str(binding), "STORAGE": str(storage), "FEATURES": json.dumps([*features])}
    script = _ADAPTER
    for name, value in values.items():
        script = script.replace(name, value)
    return script


def needs_browser() -> pytest.MarkDecorator:
    """Skip tests where no page can be opened, unless ``CI`` is set."""
    try:
        _programs()
        reason = ""
    except EdgecError as error:
        reason = str(error)
    return pytest.mark.skipif(bool(reason) and not os.environ.get("CI"), reason=reason or "-")


class Browser:
    """A browser that does what steps say, each list of them as a visitor who was never there."""

    def __init__(self) -> None:
        program, modules, browser = _programs()
        self._process = subprocess.Popen(
            [program, str(HERE / "drive.mjs"), str(modules), browser],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def browse(self, *steps: Sequence[Any], **options: Any) -> Seen:
        """Do what the steps say; see ``drive.mjs``."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"options": options, "steps": steps}) + "\n")
        self._process.stdin.flush()
        result = json.loads(self._process.stdout.readline())
        assert result["failed"] is None, f"{result['failed']}\n{result['said']}"
        return Seen(result["found"], result["said"], result["requests"])

    def close(self) -> None:
        """End the browser."""
        self._process.communicate()


def _programs() -> tuple[str, Path, str]:
    folder = Path(str(webllm.__file__)).parent / "npm"
    return node(), npm_folder("the browser's driver", folder), find_browser()
