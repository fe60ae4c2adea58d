"""How a tokenizer's pieces become text: what engines need for constrained decoding."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_WORD_START = "\u2581"  # sentencepiece writes spaces as this block character


def tokenizer_info(tokenizer: Mapping[str, Any]) -> dict[str, str | bool]:
    """``tokenizer_info`` of the chat config from the content of ``tokenizer.json``.

    ``token_postproc_method`` is ``byte_level`` if each byte has a printable stand-in (GPT-2),
    ``byte_fallback`` if bytes are tokens such as ``<0x0A>`` (sentencepiece), else ``raw``.
    ``prepend_space_in_encode`` and ``strip_space_in_decode`` tell whether a space is added before
    text, and taken from its front again.
    """
    decoders = list(_steps(tokenizer.get("decoder"), "decoders"))
    kinds = [decoder.get("type") for decoder in decoders]
    method = "raw"
    if "ByteLevel" in kinds:
        method = "byte_level"
    elif "ByteFallback" in kinds:
        method = "byte_fallback"
    before = [
        *_steps(tokenizer.get("normalizer"), "normalizers"),
        *_steps(tokenizer.get("pre_tokenizer"), "pretokenizers"),
    ]
    return {
        "token_postproc_method": method,
        "prepend_space_in_encode": any(_prepends(step) for step in before),
        "strip_space_in_decode": any(_strips(decoder) for decoder in decoders),
    }


def _steps(step: Any, inner: str) -> Iterator[Mapping[str, Any]]:
    """A step, or those of a sequence of steps at any depth."""
    if not isinstance(step, dict):
        return
    if step.get("type") == "Sequence":
        for part in step.get(inner) or ():
            yield from _steps(part, inner)
    else:
        yield step


def _prepends(step: Mapping[str, Any]) -> bool:
    if step.get("type") == "Prepend":
        return step.get("prepend") == _WORD_START
    return _is_prepending_metaspace(step)


def _strips(decoder: Mapping[str, Any]) -> bool:
    if decoder.get("type") == "Strip":
        return (decoder.get("content"), decoder.get("start"), decoder.get("stop")) == (" ", 1, 0)
    return _is_prepending_metaspace(decoder)


def _is_prepending_metaspace(step: Mapping[str, Any]) -> bool:
    if step.get("type") != "Metaspace":
        return False
    scheme = step.get("prepend_scheme")  # older files have add_prefix_space instead
    return scheme != "never" if scheme is not None else bool(step.get("add_prefix_space", True))
