"""Ask an artifact through WebLLM."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from edgec.errors import EdgecError, ToolchainError, VerificationError
from edgec.standins.npm import npm_folder
from edgec.standins.webllm.answer import Answer
from edgec.standins.webllm.browser import Browser, with_errors
from edgec.standins.webllm.server import serve

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from types import TracebackType

    from typing_extensions import Self

_HERE = Path(__file__).parent
PACKAGES = _HERE / "npm"
"""The versions of WebLLM and of what drives the browser."""
_ID = "model"
_CHAT_CONFIG = "mlc-chat-config.json"
_SECONDS = 600.0
# WebLLM's names for what the browser, and not the artifact, lacks.
_OF_THE_BROWSER = frozenset(
    {
        "WebGPUNotAvailableError",
        "WebGPUNotFoundError",
        "ShaderF16SupportError",
        "FeatureSupportError",
    }
)

Kind = Literal["chat", "completion"]


class Session:
    """One artifact, loaded in one browser; a context manager.

    Args:
        library: ``model.wasm``.
        weights: its weight folder, with ``mlc-chat-config.json`` and the tokenizer's files.
        overrides: of the chat configuration, such as ``context_window_size``.
        model_manifest: name of the model manifest in the weight folder, by which WebLLM shall load
            the model; None if it shall go by the names of the library's functions.
        timeout_seconds: that each step may take.

    Attributes:
        adapter: how the browser describes what executes the kernels.
        features: of WebGPU that it has: ``"shader-f16"``.
        browser_version: of Chromium.
        load_seconds: until WebLLM had loaded the artifact.
        messages: all that the page wrote to its console.
        requests: all that the page asked the server for: method, path and status.

    Raises:
        ToolchainError: the browser, Node.js or their packages are missing, or the browser can't
            run this artifact.
        VerificationError: WebLLM can't load the artifact.
    """

    def __init__(
        self,
        library: Path,
        weights: Path,
        *,
        overrides: Mapping[str, Any] | None = None,
        model_manifest: str | None = None,
        timeout_seconds: float = _SECONDS,
    ) -> None:
        self._library = library
        self._timeout = timeout_seconds
        self.messages: list[str] = []
        packages = npm_folder("WebLLM", PACKAGES)
        with contextlib.ExitStack() as stack:
            server = stack.enter_context(
                serve(
                    {
                        "/": _HERE / "page",
                        "/npm/": packages,
                        "/library/model.wasm": library,
                        f"/{_ID}/resolve/main/": weights,
                    }
                )
            )
            self.requests = server.requests
            self._browser = Browser(packages)
            stack.callback(self._browser.close)
            self.browser_version = self._browser.version
            self._request("visit", url=server.url)
            adapter = self._run("adapter") or {"name": "no adapter for WebGPU", "features": []}
            self.adapter: str = adapter["name"]
            self.features: tuple[str, ...] = tuple(adapter["features"])
            record: dict[str, Any] = {
                "model": f"{server.url}{_ID}/",
                "model_id": _ID,
                "model_lib": f"{server.url}library/model.wasm",
                "required_features": _required_features(weights),
            }
            if model_manifest is not None:
                record["model_manifest"] = model_manifest
            loaded = self._run("load", record=record, overrides=dict(overrides or {}))
            self.load_seconds: float = loaded["seconds"]
            self._stack = stack.pop_all()

    def close(self) -> None:
        """End the browser and the server."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _value: BaseException | None,
        _traceback: TracebackType | None,
    ) -> None:
        self.close()

    def chat(self, messages: Sequence[Mapping[str, Any]] | str, **options: Any) -> Answer:
        """Continue a chat.

        Args:
            messages: with ``role`` and ``content``; a text alone is one message of the user. WebLLM
                keeps the KV cache where they begin with what was said before.
            options: of WebLLM's ``chat.completions.create``: ``max_tokens``, ``temperature``,
                ``top_p``, ``seed``, ``stop``, ``frequency_penalty``, ``presence_penalty``,
                ``repetition_penalty``, ``logit_bias``, ``logprobs``, ``response_format``,
                ``stream``, ....

        Raises:
            VerificationError: WebLLM or the device reported an error.
        """
        said = [{"role": "user", "content": messages}] if isinstance(messages, str) else messages
        return self.ask("chat", {"messages": [dict(one) for one in said], **options})

    def complete(self, prompt: str, **options: Any) -> Answer:
        """Continue a text as it stands, without a template; options as those of :meth:`chat`.

        Raises:
            VerificationError: WebLLM or the device reported an error.
        """
        return self.ask("completion", {"prompt": prompt, **options})

    def ask(self, kind: Kind, request: Mapping[str, Any]) -> Answer:
        """Hand a request over as it is.

        Raises:
            VerificationError: WebLLM or the device reported an error.
        """
        seen = len(self.messages)
        got = self._run("ask", kind=kind, request=dict(request))
        return Answer(
            text="".join(got["pieces"]),
            token_ids=tuple(got["token_ids"]),
            prompt_ids=tuple(got["prompt_ids"]),
            finish_reason=got["finish_reason"],
            usage=got["usage"],
            logprobs=tuple(got["logprobs"]),
            pieces=tuple(got["pieces"]),
            seconds=got["seconds"],
            first_piece_seconds=got.get("first_piece_seconds", got["seconds"]),
            messages=tuple(self.messages[seen:]),
        )

    def reset(self) -> None:
        """Forget the chat and the KV cache."""
        self._run("reset")

    def stats(self) -> str:
        """What WebLLM says of its speed."""
        return str(self._run("stats"))

    def _run(self, operation: str, **argument: Any) -> Any:
        """Call a function of the page."""
        result, messages = self._request("run", operation_in_page=operation, argument=argument)
        if result["ok"] and not result["problems"]:
            return result.get("value")
        raise self._failure(result, messages)

    def _request(self, operation: str, **rest: Any) -> tuple[Any, Sequence[str]]:
        reply = self._browser.request(operation, timeout_seconds=self._timeout, **rest)
        self.messages.extend(reply.messages)
        return reply.value, reply.messages

    def _failure(self, result: Mapping[str, Any], messages: Sequence[str]) -> EdgecError:
        if result.get("name") in _OF_THE_BROWSER:
            return ToolchainError(
                result["message"],
                where="chromium",
                remedy="use a browser and an adapter that have it, or a recipe without float16",
            )
        what = "; ".join(filter(None, [result.get("message"), *result["problems"]]))
        return VerificationError(
            f"WebLLM: {with_errors(what, messages)}",
            where=str(self._library),
            remedy="every browser would report this; report it with the target's name",
        )


def ask(artifact: Path, request: Mapping[str, Any]) -> Answer:
    """Load an artifact, ask it once, and end.

    Args:
        artifact: folder of an artifact for browsers.
        request: with ``messages`` a chat, else with ``prompt`` a text to continue; see
            :meth:`Session.chat`.

    Raises:
        ToolchainError: the browser, Node.js or their packages are missing.
        VerificationError: WebLLM can't load the artifact, or reported an error.
    """
    kind: Kind = "chat" if "messages" in request else "completion"
    with Session(artifact / "lib" / "model.wasm", artifact / "model") as session:
        return session.ask(kind, request)


def greedy(library: Path, weights: Path, prompt: str, tokens: int) -> Answer:
    """The most likely tokens after a text, one after the other, through WebLLM.

    The text goes in as it is: no template, no token before it. To be compared with what the same
    weights give elsewhere for ``prompt_ids``.

    Args:
        library: ``model.wasm``.
        weights: its weight folder.
        prompt: to continue.
        tokens: how many, whatever they are: none of them ends the text.

    Raises:
        ToolchainError: the browser, Node.js or their packages are missing.
        VerificationError: WebLLM can't load the artifact, or reported an error.
    """
    with Session(library, weights) as session:
        return session.complete(
            prompt, max_tokens=tokens, temperature=0, top_p=1, ignore_eos=True, **_NO_PENALTIES
        )


_NO_PENALTIES = {"frequency_penalty": 0, "presence_penalty": 0, "repetition_penalty": 1}


def _required_features(weights: Path) -> list[str]:
    """What kernels for activations of these types need."""
    try:
        scheme = json.loads((weights / _CHAT_CONFIG).read_bytes()).get("quantization", "")
    except (OSError, ValueError):
        return []  # WebLLM says what is wrong with it
    return ["shader-f16"] if "f16" in str(scheme) else []
