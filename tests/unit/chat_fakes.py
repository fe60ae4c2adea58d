"""Small tokenizers for the tests of chat configs, prompts and streams."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers

from edgec.artifacts.tokenizer_files import TokenizerFiles

if TYPE_CHECKING:
    from pathlib import Path

CHATML_JINJA = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' +"
    " message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA3_JINJA = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] +"
    " '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}"
    "{{ content }}{% endfor %}"
)
LLAMA31_JINJA = (
    "{{- bos_token }}{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}"
    "{{- 'Cutting Knowledge Date: December 2023\n' }}{{- '<|eot_id|>' }}"
)
PHI4_JINJA = "{{'<|im_start|>user<|im_sep|>' + message['content'] + '<|im_end|>'}}"
QWEN3_JINJA = CHATML_JINJA + "{%- set content = content.split('</think>')[-1] %}"
LLAMA2_JINJA = (
    "{% set content = '<<SYS>>\n' + system_message + '\n<</SYS>>\n\n' %}"
    "{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
)
ZEPHYR_JINJA = (
    "{{ '<|user|>\n' + message['content'] + eos_token }}"
    "{{ '<|system|>\n' + message['content'] + eos_token }}"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}"
)

CHATML_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LLAMA3_TOKENS = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|eot_id|>",
    "<|eom_id|>",
)


def files_with(
    tokens: tuple[str, ...],
    chat_template: str | None = None,
    tokenizer: dict[str, Any] | None = None,
    **config: Any,
) -> TokenizerFiles:
    """A tokenizer whose special ``tokens`` have the ids 100, 101, ..."""
    added = [{"id": 100 + index, "content": token} for index, token in enumerate(tokens)]
    content = {"added_tokens": added, "model": {"vocab": {"a": 0, "b": 1}}, **(tokenizer or {})}
    return TokenizerFiles(
        ("tokenizer.json", "tokenizer_config.json"), content, config, chat_template
    )


def sentencepiece_like(folder: Path, *, metaspace: bool) -> Path:
    """Write a tokenizer of words and byte tokens as Llama 2 (or later exports of it) has.

    Ids: 0 to 2 are special, 3 to 258 the bytes, then a few pieces, the block character among them.
    """
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += ["\u2581", "h", "i", "\u2581h", "\u2581hi", "\u2581\u2581", "\u00e9", "\n"]
    vocab = {piece: index for index, piece in enumerate(pieces)}
    merges = [("\u2581", "h"), ("\u2581h", "i"), ("\u2581", "\u2581")]
    tokenizer = tokenizers.Tokenizer(
        models.BPE(vocab, merges, unk_token=pieces[0], byte_fallback=True, fuse_unk=True)
    )
    if metaspace:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        tokenizer.decoder = decoders.Sequence(
            [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first", split=False)]
        )
    else:
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")]
        )
        tokenizer.decoder = decoders.Sequence(
            [
                decoders.Replace("\u2581", " "),
                decoders.ByteFallback(),
                decoders.Fuse(),
                decoders.Strip(" ", 1, 0),
            ]
        )
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
