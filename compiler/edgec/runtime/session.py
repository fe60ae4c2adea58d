"""An artifact that is loaded on this machine: engine, tokenizer, and what they take."""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from edgec.artifacts.conversation import Conversation
from edgec.artifacts.layout import CHAT_CONFIG
from edgec.errors import CheckpointError, UsageError
from edgec.models.kv_cache import PAGE_SIZE, kept_tokens, pages
from edgec.models.window import SlidingWindow
from edgec.runtime.compatibility import check_runtime
from edgec.runtime.forward import Capacity
from edgec.runtime.load import load_engine
from edgec.runtime.threads import set_threads
from edgec.runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgec.artifacts.artifact import Artifact
    from edgec.runtime.engine import Engine


@dataclass(frozen=True)
class Session:
    """A loaded artifact.

    Attributes:
        artifact: that was opened.
        engine: with room for one sequence.
        chat_config: content of ``mlc-chat-config.json``.
        threads: size of the runtime's thread pool.
        load_seconds: from the first file to a ready engine, the runtime's own start included.
    """

    artifact: Artifact
    engine: Engine
    chat_config: Mapping[str, Any]
    threads: int
    load_seconds: float

    @property
    def context(self) -> int:
        """Tokens that the KV cache has room for; those that are kept, where a window slides."""
        return self.engine.capacity.tokens

    @property
    def window(self) -> SlidingWindow | None:
        """The window that slides over a conversation, if one does."""
        return SlidingWindow.of(self.chat_config)

    @property
    def kv_cache_bytes(self) -> int:
        """Keys and values of a full context."""
        memory = self.artifact.manifest["memory"]
        if memory.get("sliding_window") is not None:
            return int(memory["kv_cache_bytes"])
        per_page = int(memory["kv_cache_bytes"]) // _pages(memory["context_length"])
        return per_page * _pages(self.context)

    @property
    def kv_bytes_per_token(self) -> int:
        """Keys and values of one position."""
        tokens = kept_tokens(self.context, self.window)
        return self.kv_cache_bytes // (_pages(tokens) * PAGE_SIZE)

    @property
    def decode_weights_bytes(self) -> int:
        """Weights that a decode step reads."""
        memory = self.artifact.manifest["memory"]
        return int(memory.get("decode_weights_bytes") or memory["weights_bytes"])

    @property
    def vocab_size(self) -> int:
        """Entries of the logits."""
        return _size(self.chat_config, "vocab_size", self.artifact)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The artifact's tokenizer.

        Raises:
            CheckpointError: it has none, or the file is damaged.
        """
        return Tokenizer(self.artifact.model)


def conversation_of(artifact: Artifact) -> Conversation:
    """An artifact's chat format, which takes no loading.

    Raises:
        CheckpointError: it is missing or malformed.
    """
    return Conversation.from_chat_config(artifact.chat_config, str(artifact.model / CHAT_CONFIG))


def open_session(
    artifact: Artifact, *, threads: int | None = None, context: int | None = None
) -> Session:
    """Load an artifact for one sequence at a time.

    Args:
        artifact: an opened one.
        threads: size of the runtime's thread pool; None for one per core that the process
            may use, or what
            ``TVM_NUM_THREADS`` says. The pool is started once: later sessions of a process
            have the size of the first.
        context: tokens that the KV cache has room for; None for the artifact's own length.

    Raises:
        ToolchainError: this processor can't run the library, or the installed runtime isn't the
            one that it was built for.
        UsageError: ``context`` is more than the artifact's, or it is a generic model's.
        VerificationError: a file is missing or cut short, or the library is damaged.
        CheckpointError: the weights or the chat config are damaged.
    """
    started = time.perf_counter()
    if artifact.interface is not None:
        raise UsageError(
            "the artifact is a generic model, which writes no text",
            where=str(artifact.folder),
            remedy="call it with edgec run --input NAME=FILE.npy, or with"
            " edgec.runtime.tensor_model.open_model",
        )
    runtime = artifact.manifest["runtime"]
    check_runtime(artifact.library, runtime)
    artifact.check_before_loading()
    config = artifact.chat_config
    window = SlidingWindow.of(config)
    if window is not None and context not in (None, window.size):
        raise UsageError(
            f"the artifact slides a window of {window.size} tokens over its context, which has no"
            " end",
            where="context",
            remedy="leave it out, or build with another context.sliding_window",
        )
    longest = _size(
        config, "context_window_size" if window is None else "sliding_window_size", artifact
    )
    if context is not None and not 1 <= context <= longest:
        raise UsageError(
            f"a context of {context} tokens is out of range, the artifact was built for {longest}",
            where="context",
            remedy=f"give 1 to {longest}, or build with a larger context.length",
        )
    tokens = context or longest
    chunk = _size(config, "prefill_chunk_size", artifact)
    if window is None:
        chunk = min(chunk, tokens)
    chosen = set_threads(threads)
    engine = load_engine(
        artifact.library,
        artifact.model,
        runtime["cpu_features"],
        runtime["architecture"],
        capacity=Capacity(sequences=1, tokens=tokens, prefill_chunk=chunk),
    )
    return Session(artifact, engine, config, chosen, time.perf_counter() - started)


def _size(config: Mapping[str, Any], name: str, artifact: Artifact) -> int:
    value = config.get(name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise CheckpointError(
            f"{name} is {value!r}, not a positive whole number",
            where=str(artifact.model / CHAT_CONFIG),
            remedy="build the artifact again",
        )
    return value


def _pages(tokens: int) -> int:
    return max(1, pages(tokens))
