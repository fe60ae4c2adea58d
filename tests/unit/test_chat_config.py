"""mlc-chat-config.json: every key that an engine reads, templates, ids and tokenizer facts."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from chat_fakes import (
    CHATML_JINJA,
    CHATML_TOKENS,
    LLAMA2_JINJA,
    LLAMA3_JINJA,
    LLAMA3_TOKENS,
    LLAMA31_JINJA,
    PHI4_JINJA,
    QWEN3_JINJA,
    ZEPHYR_JINJA,
    files_with,
    sentencepiece_like,
)

from edgec import resources
from edgec.artifacts.chat_config import build_chat_config, chat_config
from edgec.artifacts.conversation import Conversation, list_templates, load_template
from edgec.artifacts.recognize import recognize_template
from edgec.artifacts.tokenizer_files import TokenizerFiles, read_tokenizer_files
from edgec.artifacts.tokenizer_info import tokenizer_info
from edgec.errors import CheckpointError, UsageError
from edgec.models.images import ImageInput
from edgec.models.window import SlidingWindow

if TYPE_CHECKING:
    from pathlib import Path

TINYPY = resources.folder("recipes") / "tinypy"
LLAMA3_BOS: dict[str, Any] = {"bos_token": "<|begin_of_text|>"}
TINYPY_FILES = ("tokenizer.json", "tokenizer_config.json", "generation_config.json")

# What the C++ engine, the mobile apps and WebLLM refuse to load without, with its JSON type.
REQUIRED = {
    "model_type": str,
    "quantization": str,
    "model_config": dict,
    "vocab_size": int,
    "context_window_size": int,
    "sliding_window_size": int,
    "attention_sink_size": int,
    "prefill_chunk_size": int,
    "tensor_parallel_shards": int,
    "temperature": float,
    "top_p": float,
    "presence_penalty": float,
    "frequency_penalty": float,
    "repetition_penalty": float,
    "tokenizer_files": list,
    "tokenizer_info": dict,
    "conv_template": dict,
}
REQUIRED_CONVERSATION = {
    "system_template": str,
    "system_message": str,
    "add_role_after_system_message": bool,
    "roles": dict,
    "role_templates": dict,
    "messages": list,
    "seps": list,
    "role_content_sep": str,
    "role_empty_sep": str,
    "stop_str": list,
    "stop_token_ids": list,
    "strip_reasoning_in_history": bool,
    "function_string": str,
    "use_function_calling": bool,
    "render_empty_system_message": bool,
}


def tinypy(**changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "model_type": "llama",
        "quantization": "q4f32_1",
        "config": json.loads((TINYPY / "config.json").read_text()),
        "tokenizer_folder": TINYPY,
        "tokenizer_files": TINYPY_FILES,
        "context_length": 1024,
        "prefill_chunk": 256,
        "max_batch_size": 4,
        "generation": {"temperature": 0.6, "top_p": 0.95, "repetition_penalty": 1.0},
        "template": "completion",
    }
    return chat_config(**{**arguments, **changes})


def build(tokenizer: TokenizerFiles, template: str | None = None, **changes: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "model_type": "llama",
        "quantization": "q4f16_1",
        "config": {"vocab_size": 200},
        "generation_config": {},
        "context_length": 64,
        "prefill_chunk": 32,
        "max_batch_size": 1,
        "generation": {},
        "tokenizer": tokenizer,
        "template": template,
    }
    return build_chat_config(**{**arguments, **changes})


def prefix(tokenizer: TokenizerFiles, template: str | None = None, **changes: Any) -> list[int]:
    conversation = build(tokenizer, template, **changes)["conv_template"]
    ids: list[int] = conversation.get("system_prefix_token_ids", [])
    return ids


@pytest.mark.parametrize("template", list_templates())
def test_every_template_gives_every_key_that_engines_need(template: str) -> None:
    tokens = tuple(dict.fromkeys([*load_template(template).tokens, "</s>"]))
    config = json.loads(json.dumps(build(files_with(tokens), template)))
    for key, kind in REQUIRED.items():
        assert type(config[key]) is kind, key
    conversation = config["conv_template"]
    for key, kind in REQUIRED_CONVERSATION.items():
        assert type(conversation[key]) is kind, key
    assert conversation["roles"].keys() == {"user", "assistant", "tool"}
    assert conversation["role_templates"].keys() == {"user", "assistant", "tool"}
    assert 1 <= len(conversation["seps"]) <= 2
    assert "{system_message}" in conversation["system_template"]
    assert config["model_config"]["vocab_size"] == config["vocab_size"]
    assert config["model_config"]["prefill_chunk_size"] == config["prefill_chunk_size"]
    assert None not in (*config.values(), *conversation.values())


def test_a_window_takes_the_place_of_a_context() -> None:
    config = tinypy(window=SlidingWindow(128, 4))
    for sizes in (config, config["model_config"]):
        names = ("context_window_size", "sliding_window_size", "attention_sink_size")
        assert [sizes[name] for name in names] == [-1, 128, 4]
    # WebLLM insists on a number of first tokens, also on none.
    assert tinypy(window=SlidingWindow(128, 0))["attention_sink_size"] == 0


def test_tinypy() -> None:
    config = tinypy()
    conversation = config.pop("conv_template")
    model = config.pop("model_config")
    assert config == {
        "version": "0.1.0",
        "model_type": "llama",
        "model_task": "chat",
        "quantization": "q4f32_1",
        "vocab_size": 4096,
        "context_window_size": 1024,
        "sliding_window_size": -1,
        "attention_sink_size": -1,
        "prefill_chunk_size": 256,
        "tensor_parallel_shards": 1,
        "pipeline_parallel_stages": 1,
        "temperature": 0.6,
        "top_p": 0.95,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "tokenizer_files": ["tokenizer.json", "tokenizer_config.json"],
        "tokenizer_info": {
            "token_postproc_method": "byte_level",
            "prepend_space_in_encode": False,
            "strip_space_in_decode": False,
        },
        "bos_token_id": 0,
        "eos_token_id": 0,
        "pad_token_id": 0,
    }
    assert model["max_batch_size"] == 4
    assert model["num_key_value_heads"] == 2
    assert conversation["name"] == "completion"
    assert conversation["stop_token_ids"] == [0]
    assert conversation["system_prefix_token_ids"] == [0]  # it was trained with it in front
    assert set(conversation["roles"].values()) == {""}
    assert conversation["seps"] == [""]
    assert Conversation.from_chat_config({"conv_template": conversation}, "").to_json() == (
        conversation
    )


def test_a_model_without_tokenizer_still_has_a_config() -> None:
    config = tinypy(tokenizer_files=(), template=None)
    assert config["tokenizer_files"] == []
    assert config["conv_template"]["name"] == "completion"
    assert config["conv_template"]["stop_token_ids"] == [0]
    assert config["tokenizer_info"] == tokenizer_info({})


@pytest.mark.parametrize(
    ("jinja", "tokens", "name"),
    [
        (CHATML_JINJA, CHATML_TOKENS, "chatml"),
        (QWEN3_JINJA, CHATML_TOKENS, "qwen3"),
        (PHI4_JINJA, (*CHATML_TOKENS, "<|im_sep|>"), "phi-4"),
        (LLAMA3_JINJA, LLAMA3_TOKENS, "llama-3"),
        (LLAMA31_JINJA, LLAMA3_TOKENS, "llama-3.1"),
        (LLAMA2_JINJA, ("<s>", "</s>"), "llama-2"),
        (ZEPHYR_JINJA, ("<s>", "</s>"), "zephyr"),
        (None, LLAMA3_TOKENS, "completion"),
    ],
)
def test_templates_are_recognized(jinja: str | None, tokens: tuple[str, ...], name: str) -> None:
    assert recognize_template(files_with(tokens, jinja)) == name


def test_an_unknown_chat_template_is_not_guessed() -> None:
    with pytest.raises(UsageError, match="isn't one that edgec knows; name one") as caught:
        recognize_template(files_with((), "{{ '<turn>' + message['content'] }}"))
    assert "completion" in str(caught.value)


def test_a_format_whose_markers_the_tokenizer_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match=r"doesn't have: <\|im_start\|>, <\|im_end\|>"):
        build(files_with(LLAMA3_TOKENS), "chatml")
    # Nor is it recognized, whatever the Jinja template says.
    with pytest.raises(UsageError, match="isn't one that edgec knows"):
        build(files_with(LLAMA3_TOKENS, CHATML_JINJA))


def test_an_unknown_name_names_close_ones() -> None:
    with pytest.raises(UsageError, match=r"no chat template 'lama-3'.*llama-3"):
        load_template("lama-3")
    with pytest.raises(UsageError, match="no chat template"):
        load_template("../chatml")


def test_stop_tokens_are_those_of_the_format_and_of_generation() -> None:
    files = files_with(LLAMA3_TOKENS, LLAMA3_JINJA, **LLAMA3_BOS)
    config = build(
        files,
        config={"vocab_size": 200, "eos_token_id": 7},
        generation_config={"eos_token_id": [101, 150]},
    )
    assert config["conv_template"]["stop_token_ids"] == [104, 101, 150]
    assert config["eos_token_id"] == 101
    assert config["bos_token_id"] == 100


def test_special_ids_fall_back_from_generation_to_model_to_tokenizer() -> None:
    files = files_with(CHATML_TOKENS, eos_token={"content": "<|im_end|>"})
    ids = {"vocab_size": 200, "eos_token_id": [5, 6, 5]}
    assert build(files, generation_config={"eos_token_id": 9})["eos_token_id"] == 9
    assert build(files, config=ids)["conv_template"]["stop_token_ids"] == [5, 6]
    assert build(files, generation_config={"eos_token_id": None})["eos_token_id"] == 102
    # -1 is how some configs say "none"; it is no id.
    config = build(files, config={"vocab_size": 200, "pad_token_id": -1, "bos_token_id": None})
    assert "pad_token_id" not in config
    assert "bos_token_id" not in config


@pytest.mark.parametrize("wrong", ["2", 2.0, True, [1, "2"], {}])
def test_ids_of_the_wrong_type(wrong: Any) -> None:
    with pytest.raises(
        CheckpointError, match=r"generation_config.json: eos_token_id: .* not a token"
    ):
        build(files_with(()), generation_config={"eos_token_id": wrong})


def test_ids_outside_of_the_vocabulary() -> None:
    with pytest.raises(CheckpointError, match=r"special token 102 is outside .* of 102"):
        build(files_with(CHATML_TOKENS), "chatml", config={"vocab_size": 102})
    assert build(files_with(CHATML_TOKENS), "chatml", config={"vocab_size": 103})


def test_a_tokenizer_of_another_model() -> None:
    files = TokenizerFiles(tokenizer={"model": {"vocab": {"a": 0, "b": 7}}})
    with pytest.raises(CheckpointError, match=r"tokens up to 7, and the model a vocabulary of 7;"):
        build(files, "completion", config={"vocab_size": 7})
    assert build(files, "completion", config={"vocab_size": 8})
    # One that was added for padding is never asked for.
    assert build(files_with(("<pad>",)), "completion", config={"vocab_size": 10})


POST_PROCESSOR = {
    "type": "Sequence",
    "processors": [
        {"type": "ByteLevel"},
        {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "<|begin_of_text|>", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "<|end_of_text|>", "type_id": 0}},
            ],
            "special_tokens": {
                "<|begin_of_text|>": {"ids": [100]},
                "<|end_of_text|>": {"ids": [101]},
            },
        },
    ],
}


def test_a_completion_begins_as_the_tokenizer_wants() -> None:
    ids = LLAMA3_BOS
    post = {"post_processor": POST_PROCESSOR}
    assert prefix(files_with(LLAMA3_TOKENS, **ids)) == []
    assert prefix(files_with(LLAMA3_TOKENS, tokenizer=post)) == [100]
    assert prefix(files_with(LLAMA3_TOKENS, add_bos_token=True, **ids)) == [100]
    assert prefix(files_with(LLAMA3_TOKENS, tokenizer=post, add_bos_token=False, **ids)) == []
    assert prefix(files_with(LLAMA3_TOKENS, tokenizer_class="LlamaTokenizerFast", **ids)) == [100]
    # A base model's text goes in raw even if its tokenizer could chat.
    chatting = files_with(LLAMA3_TOKENS, LLAMA3_JINJA, tokenizer=post)
    assert prefix(chatting, "completion") == [100]
    with pytest.raises(CheckpointError, match="no file says which token"):
        prefix(files_with(LLAMA3_TOKENS, add_bos_token=True))


def test_a_chat_begins_as_its_own_template_says() -> None:
    files = files_with(LLAMA3_TOKENS, LLAMA3_JINJA, add_bos_token=False, **LLAMA3_BOS)
    assert prefix(files) == [100]
    # SmolLM's first token is also a marker of its format, which the template writes itself.
    bos: dict[str, Any] = {"bos_token": "<|im_start|>"}
    smol = files_with(CHATML_TOKENS, CHATML_JINJA, add_bos_token=True, **bos)
    assert prefix(smol) == []
    # Without a template of its own the tokenizer's rule for text counts.
    post = {"post_processor": POST_PROCESSOR}
    assert prefix(files_with(LLAMA3_TOKENS, tokenizer=post), "llama-3") == [100]


@pytest.mark.parametrize(
    ("tokenizer", "method", "prepends", "strips"),
    [
        ({}, "raw", False, False),
        ({"decoder": {"type": "WordPiece"}, "normalizer": None}, "raw", False, False),
        ({"decoder": {"type": "ByteLevel"}}, "byte_level", False, False),
        (
            {"decoder": {"type": "Sequence", "decoders": [{"type": "ByteFallback"}]}},
            "byte_fallback",
            False,
            False,
        ),
        (
            {"pre_tokenizer": {"type": "Metaspace", "prepend_scheme": "never"}},
            "raw",
            False,
            False,
        ),
        (
            {
                "normalizer": {"type": "Prepend", "prepend": "x"},
                "decoder": {"type": "Strip", "content": " ", "start": 0, "stop": 1},
            },
            "raw",
            False,
            False,
        ),
    ],
)
def test_tokenizer_info(
    tokenizer: dict[str, Any], method: str, prepends: bool, strips: bool
) -> None:
    assert tokenizer_info(tokenizer) == {
        "token_postproc_method": method,
        "prepend_space_in_encode": prepends,
        "strip_space_in_decode": strips,
    }


@pytest.mark.parametrize("metaspace", [False, True])
def test_tokenizer_info_of_sentencepiece(tmp_path: Path, metaspace: bool) -> None:
    folder = sentencepiece_like(tmp_path, metaspace=metaspace)
    files = read_tokenizer_files(folder, ["tokenizer.json"])
    assert tokenizer_info(files.tokenizer) == {
        "token_postproc_method": "byte_fallback",
        "prepend_space_in_encode": True,
        "strip_space_in_decode": True,
    }


def test_token_ids_of_every_kind_of_vocabulary() -> None:
    unigram = TokenizerFiles(tokenizer={"model": {"vocab": [["<unk>", 0.0], ["a", -1.5]]}})
    assert unigram.token_id("a") == 1
    assert unigram.token_id("b") is None
    files = files_with(("<x>",))
    assert (files.token_id("<x>"), files.token_id("b"), files.token_id("?")) == (100, 1, None)
    assert TokenizerFiles().token_id("a") is None
    assert (unigram.largest_id(), files.largest_id(), TokenizerFiles().largest_id()) == (1, 1, -1)


def test_a_chat_template_in_its_own_file_or_in_a_list(tmp_path: Path) -> None:
    shutil.copy(TINYPY / "tokenizer.json", tmp_path)
    names = ["tokenizer.json", "tokenizer_config.json", "chat_template.jinja"]
    listed = {
        "chat_template": [
            {"name": "tool_use", "template": "T"},
            {"name": "default", "template": "D"},
        ]
    }
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(listed))
    (tmp_path / "chat_template.jinja").write_text("J")
    assert read_tokenizer_files(tmp_path, names).chat_template == "J"
    files = read_tokenizer_files(tmp_path, names[:2])
    assert files.chat_template == "D"
    assert files.names == ("tokenizer.json", "tokenizer_config.json")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "tokenizer.json:1:2: is not valid JSON"),
        ("{}", "has no vocabulary"),
        ('{"model": {"vocab": {}}, "added_tokens": [{"content": "x"}]}', "added_tokens is not"),
    ],
)
def test_a_damaged_tokenizer(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        tinypy(tokenizer_folder=tmp_path, tokenizer_files=["tokenizer.json"])


def test_only_a_tokenizer_of_another_format() -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.model but no tokenizer\.json"):
        tinypy(tokenizer_files=["tokenizer.model"])


@pytest.mark.parametrize("broken", [None, "chatml", {}, {"roles": {}, "seps": []}])
def test_a_damaged_conversation(broken: Any) -> None:
    with pytest.raises(CheckpointError, match=r"x\.json: conv_template"):
        Conversation.from_chat_config({"conv_template": broken}, "x.json")


def test_keys_of_other_builders_are_passed_over() -> None:
    content = {"roles": {"user": "u"}, "seps": [" "], "separator_style": "Two"}
    assert Conversation.from_chat_config({"conv_template": content}, "").seps == (" ",)


def test_what_engines_compute_the_tokens_of_an_image_from() -> None:
    image = ImageInput(size=448, patch=28, start_id=5, image_id=6, end_id=7)
    fields = tinypy(image=image)["model_config"]
    assert fields["vision_config"] == {"image_size": 448, "patch_size": 28}
    # As the C++ engine computes it.
    sides = fields["vision_config"]
    assert sides["image_size"] ** 2 // sides["patch_size"] ** 2 == fields["mm_tokens_per_image"]
    ids = [fields[f"{name}_token_id"] for name in ("vision_start", "image", "vision_end")]
    assert ids == [5, 6, 7]
    assert "vision_config" not in tinypy()["model_config"]
