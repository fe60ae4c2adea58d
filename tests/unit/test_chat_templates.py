"""Our chat formats against the models' own templates: the same text, and the same tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NoReturn

import pytest
import tokenizers
from chat_templates import INEXPRESSIBLE, PUBLISHED, Published
from jinja2.exceptions import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import decoders, models, pre_tokenizers

from edgec.artifacts.chat_config import build_chat_config
from edgec.artifacts.conversation import COMPLETION, Conversation, list_templates
from edgec.artifacts.recognize import recognize_template
from edgec.artifacts.tokenizer_files import TokenizerFiles
from edgec.errors import UsageError
from edgec.runtime.prompt import Message, chat_prompt, render
from edgec.runtime.tokenizer import Tokenizer

if TYPE_CHECKING:
    from pathlib import Path

SYSTEM = Message("system", "Be brief, and answer in verse.")
TALK = [
    Message("user", "Who wrote <b>Faust</b>?\nOne name."),
    Message("assistant", "Goethe.\n\nIn 1808: «Habe nun, ach!»"),
    Message("user", "And {user_message}?"),
    Message("assistant", "Nobody 🙂"),
    Message("user", "Zwei Wörter: 你好"),
]
EACH = pytest.mark.parametrize("model", PUBLISHED)


def by_jinja(published: Published, messages: list[Message]) -> str:
    """What transformers' ``apply_chat_template`` gives, with a turn for the assistant to begin."""

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.globals["raise_exception"] = refuse
    text: str = environment.from_string(published.jinja).render(
        messages=[{"role": item.role, "content": item.content} for item in messages],
        add_generation_prompt=True,
        bos_token=published.bos,
        eos_token=published.eos,
    )
    return text


def make_files(published: Published, folder: Path) -> TokenizerFiles:
    """A tokenizer of bytes with the markers as tokens, and its chat template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = tokenizers.Tokenizer(
        models.BPE({char: index for index, char in enumerate(alphabet)}, [])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = dict.fromkeys([published.bos, published.eos, *published.tokens])
    tokenizer.add_special_tokens([token for token in special if token])
    tokenizer.save(str(folder / "tokenizer.json"))
    added = [
        {"id": index, "content": token.content}
        for index, token in tokenizer.get_added_tokens_decoder().items()
    ]
    content = {"added_tokens": added, "model": {"vocab": tokenizer.get_vocab(False)}}
    config = {"bos_token": published.bos or None, "eos_token": published.eos}
    return TokenizerFiles(("tokenizer.json",), content, config, published.jinja)


def our_format(
    files: TokenizerFiles, template: str | None = None, *, always_system: bool = False
) -> Conversation:
    config: dict[str, Any] = build_chat_config(
        model_type="any",
        quantization="q0f32",
        config={"vocab_size": 1000},
        generation_config={},
        tokenizer=files,
        context_length=64,
        prefill_chunk=64,
        max_batch_size=1,
        generation={},
        template=template,
        always_system=always_system,
    )
    return Conversation.from_chat_config(config, "test")


@EACH
def test_it_is_recognized(model: str, tmp_path: Path) -> None:
    published = PUBLISHED[model]
    assert recognize_template(make_files(published, tmp_path)) == published.name


def conversations(published: Published) -> list[list[Message]]:
    """One turn, three turns, and both with a system message where the model takes one."""
    plain = [TALK[:1], TALK]
    return plain + [[SYSTEM, *talk] for talk in plain if published.system]


@EACH
def test_text_and_tokens_are_those_of_the_model(model: str, tmp_path: Path) -> None:
    published = PUBLISHED[model]
    ours = our_format(make_files(published, tmp_path))
    tokenizer = Tokenizer(tmp_path)
    for messages in conversations(published):
        text = by_jinja(published, messages)
        begin = published.bos if ours.system_prefix_token_ids else ""
        assert begin + render(ours, messages) == text
        assert chat_prompt(tokenizer, ours, messages) == tokenizer.encode(text)


@EACH
def test_engines_that_always_write_the_system_text_have_a_message_for_it(
    model: str, tmp_path: Path
) -> None:
    published = PUBLISHED[model]
    files = make_files(published, tmp_path)
    usual, always = our_format(files), our_format(files, always_system=True)
    assert usual.model_dump(exclude={"system_message"}) == always.model_dump(
        exclude={"system_message"}
    )
    # What such an engine puts in front of a conversation has nothing empty between markers, except
    # where the model's own template has that too or has no markers for it.
    in_front = render(always.model_copy(update={"render_empty_system_message": True}), TALK[:1])
    if always.system_message:
        said = [Message("system", always.system_message), *TALK[:1]]
        assert in_front == render(usual, said)
    else:
        assert published.name in WITHOUT_MARKERS
    if usual.system_message:
        assert always.system_message == usual.system_message


# Llama 3.1 writes an empty system message itself.
WITHOUT_MARKERS = {"llama-3.1", "gemma", "mistral", "mistral-v1", "minicpm", "redpajama"}


@EACH
def test_an_answer_ends_where_the_model_ends_it(model: str, tmp_path: Path) -> None:
    published = PUBLISHED[model]
    ours = our_format(make_files(published, tmp_path))
    ending = Tokenizer(tmp_path).encode(published.eos)
    assert len(ending) == 1
    assert ending[0] in ours.stop_token_ids


@pytest.mark.parametrize("model", ["Mistral 7B v0.3"])
def test_a_system_message_of_one_turn(model: str, tmp_path: Path) -> None:
    published = PUBLISHED[model]
    ours = our_format(make_files(published, tmp_path))
    messages = [SYSTEM, *TALK[:1]]
    assert published.bos + render(ours, messages) == by_jinja(published, messages)


def test_thoughts_are_left_out_as_qwen3_does(tmp_path: Path) -> None:
    published = PUBLISHED["Qwen3"]
    ours = our_format(make_files(published, tmp_path))
    messages = [
        SYSTEM,
        TALK[0],
        Message("assistant", "<think>\nhm, <think>\n</think>\n\nGoethe."),
        TALK[2],
    ]
    text = render(ours, messages)
    assert text == by_jinja(published, messages)
    assert "think" not in text


@pytest.mark.parametrize(("model", "ids"), [("MiniCPM 2B", 1), ("MiniCPM4", 0)])
def test_a_beginning_that_the_jinja_does_not_write(model: str, ids: int, tmp_path: Path) -> None:
    files = make_files(PUBLISHED[model]._replace(bos="<s>"), tmp_path)
    prefix = our_format(files).system_prefix_token_ids or ()
    assert prefix == (files.token_id("<s>"),) * ids


def test_the_markers_differ_between_models_of_one_maker() -> None:
    texts = {by_jinja(PUBLISHED[model], TALK[:1]) for model in ("Phi-3.5", "Phi-4-mini")}
    assert len(texts) == 2


@pytest.mark.parametrize("model", INEXPRESSIBLE)
def test_what_can_not_be_expressed_is_refused(model: str, tmp_path: Path) -> None:
    jinja, tokens = INEXPRESSIBLE[model]
    files = make_files(Published("", jinja, tokens, "", "</s>"), tmp_path)
    with pytest.raises(UsageError, match="own chat template isn't one that edgec knows; name one"):
        our_format(files)
    assert our_format(files, COMPLETION).name == COMPLETION


def test_every_template_is_checked_here_or_has_no_jinja() -> None:
    elsewhere = {COMPLETION, "llama-2", "phi-4"}
    assert set(list_templates()) == elsewhere | {item.name for item in PUBLISHED.values()}
