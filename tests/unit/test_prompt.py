"""Conversations as text: what the models' own Jinja templates give for the same messages."""

from __future__ import annotations

import pytest

from edgec import resources
from edgec.artifacts.conversation import Conversation, load_template
from edgec.errors import UsageError
from edgec.runtime.prompt import Message, chat_prompt, completion_prompt, render
from edgec.runtime.tokenizer import Tokenizer

SYSTEM = Message("system", "Be brief.")
TALK = [Message("user", "Hi"), Message("assistant", "Hello!"), Message("user", "Bye")]


def conversation(name: str) -> Conversation:
    return load_template(name).conversation(name, (), ())


# What apply_chat_template(..., add_generation_prompt=True) of the models gives, but for the first
# token (<|begin_of_text|>, <s>), which is an id in front.
EXPECTED = {
    "chatml": (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\nHi<|im_end|>\n"
        "<|im_start|>assistant\nHello!<|im_end|>\n"
        "<|im_start|>user\nBye<|im_end|>\n"
        "<|im_start|>assistant\n"
    ),
    "llama-3": (
        "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "llama-3.1": (
        "<|start_header_id|>system<|end_header_id|>\n\n"
        "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nBye<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "llama-2": (
        "[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHi [/INST] Hello! </s><s>[INST] Bye [/INST]"
    ),
    "phi-4": (
        "<|im_start|>system<|im_sep|>Be brief.<|im_end|>"
        "<|im_start|>user<|im_sep|>Hi<|im_end|>"
        "<|im_start|>assistant<|im_sep|>Hello!<|im_end|>"
        "<|im_start|>user<|im_sep|>Bye<|im_end|>"
        "<|im_start|>assistant<|im_sep|>"
    ),
    "zephyr": (
        "<|system|>\nBe brief.</s>\n<|user|>\nHi</s>\n<|assistant|>\nHello!</s>\n"
        "<|user|>\nBye</s>\n<|assistant|>\n"
    ),
    "completion": "Be brief.HiHello!Bye",
}
# The same without any system message.
EXPECTED_BARE = {
    "chatml": "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
    "llama-3": (
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "llama-3.1": (
        "<|start_header_id|>system<|end_header_id|>\n\n"
        "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHi<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    ),
    "llama-2": "[INST] Hi [/INST]",
    "phi-4": "<|im_start|>user<|im_sep|>Hi<|im_end|><|im_start|>assistant<|im_sep|>",
    "zephyr": "<|user|>\nHi</s>\n<|assistant|>\n",
    "completion": "Hi",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_several_turns(name: str) -> None:
    assert render(conversation(name), [SYSTEM, *TALK]) == EXPECTED[name]


@pytest.mark.parametrize("name", EXPECTED_BARE)
def test_an_empty_system_message(name: str) -> None:
    assert render(conversation(name), [Message("system", ""), TALK[0]]) == EXPECTED_BARE[name]


def test_the_system_message_of_the_format_is_the_default() -> None:
    text = render(conversation("qwen2"), TALK[:1])
    assert text.startswith("<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_s")


def test_system_messages_stand_in_front_wherever_they_come() -> None:
    late = [TALK[0], Message("system", "A"), TALK[1], Message("system", "B"), TALK[2]]
    early = [Message("system", "AB"), *TALK]
    for name in EXPECTED:
        assert render(conversation(name), late) == render(conversation(name), early)


def test_the_history_of_a_format_comes_first() -> None:
    template = conversation("completion").model_copy(
        update={
            "messages": (("user", "one "), ("assistant", "two ")),
            "system_template": "-{system_message}-",
        }
    )
    assert render(template, [Message("user", "three")]) == "--one two three"


def test_contents_are_never_templates() -> None:
    template = Conversation(
        system_template="<{system_message}>{system_message}",
        roles={"user": "U", "assistant": "A"},
        role_templates={"user": "{function_string}[{user_message}]{user_message}"},
        seps=("|", "/"),
        role_content_sep=":",
        role_empty_sep="=",
    )
    messages = [
        Message("system", "{user_message}"),
        Message("user", "{user_message}{function_string}{system_message}"),
        Message("assistant", "{user_message}"),
    ]
    assert render(template, messages) == (
        "<{user_message}>{system_message}U:[{user_message}{function_string}{system_message}]{user_message}|"
        "A:{user_message}/A="
    )


def test_earlier_thoughts_are_left_out() -> None:
    talk = [
        Message("user", "2+2? </think>"),
        Message("assistant", "<think>\nhm\n</think>\n\n4\n"),
        Message("user", "sure?"),
    ]
    text = render(conversation("qwen3"), [SYSTEM, *talk])
    assert text == (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\n2+2? </think><|im_end|>\n"
        "<|im_start|>assistant\n4\n<|im_end|>\n"
        "<|im_start|>user\nsure?<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert "<think>" in render(conversation("chatml"), [SYSTEM, *talk])


def test_a_role_that_the_format_does_not_know() -> None:
    with pytest.raises(UsageError, match="chatml has no role 'asistant'; did you mean assistant"):
        render(conversation("chatml"), [Message("asistant", "x")])


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer(resources.folder("recipes") / "tinypy")


def test_tokens_of_a_chat_begin_with_the_prefix(tokenizer: Tokenizer) -> None:
    template = load_template("completion").conversation("completion", (0, 0), (0,))
    assert chat_prompt(tokenizer, template, TALK[:1]) == [0, 0, *tokenizer.encode("Hi")]


def test_a_completion_goes_in_as_it_is(tokenizer: Tokenizer) -> None:
    text = "def f():\n    return '{user_message}'<|endoftext|>"
    template = load_template("chatml").conversation("chatml", (), ())
    ids = completion_prompt(tokenizer, template, text)
    assert ids == tokenizer.encode(text)
    assert ids[-1] == 0  # special tokens in text count as such
    bos = load_template("completion").conversation("completion", (7,), ())
    assert completion_prompt(tokenizer, bos, text) == [7, *ids]
