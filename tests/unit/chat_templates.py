"""Chat templates in Jinja as the models' tokenizers bring them, cut to what plain messages use.

Each is written from the published format; parts about tools and documents are left out.
"""

from __future__ import annotations

from typing import NamedTuple


class Published(NamedTuple):
    """A model's format.

    Attributes:
        name: of our template for it.
        jinja: the tokenizer's chat template.
        tokens: the markers that its tokenizer has as tokens.
        bos: the token that begins text, empty if there is none.
        eos: the token that ends text.
        system: whether its template takes a system message and puts it where ours does.
    """

    name: str
    jinja: str
    tokens: tuple[str, ...]
    bos: str
    eos: str
    system: bool = True


_CHATML = "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
_CHATML_END = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
_IM = ("<|im_start|>", "<|im_end|>")


def _chatml(default: str) -> str:
    """ChatML with a system message of its own where the messages bring none."""
    first = "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n"
    first += default + "<|im_end|>\n' }}{% endif %}"
    return first + "{% for message in messages %}" + _CHATML + "{% endfor %}" + _CHATML_END


_LLAMA3_MESSAGE = (
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    " + message['content'] | trim + '<|eot_id|>' }}"
)
_LLAMA3_END = (
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
_LLAMA3_TOKENS = ("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
_LLAMA31 = """\
{{- bos_token }}
{%- if not date_string is defined %}{%- set date_string = "26 Jul 2024" %}{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{{- "Cutting Knowledge Date: December 2023\\n" }}
{{- "Today Date: " + date_string + "\\n\\n" }}
{{- system_message }}
{{- "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
"""
_QWEN3 = """\
{%- if messages[0].role == 'system' %}
    {{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- set ns = namespace(last_query_index=messages|length - 1) %}
{%- for message in messages %}
    {%- set content = message.content %}
    {%- if message.role == 'user' or (message.role == 'system' and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\\n' + content + '<|im_end|>' + '\\n' }}
    {%- elif message.role == 'assistant' %}
        {%- set reasoning_content = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index %}
            {{- '<|im_start|>assistant\\n<think>\\n' + reasoning_content + '\\n</think>\\n\\n' }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""
_PHI3 = (
    "{% for message in messages %}{% if message['role'] == 'system' and message['content'] %}"
    "{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}"
    "{{'<|user|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'assistant' %}"
    "{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
_PHI4_MINI = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>' + message['content']"
    " + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% else %}{{ eos_token }}{% endif %}"
)
_PHI_TOKENS = ("<|system|>", "<|user|>", "<|assistant|>", "<|end|>")
_GEMMA2 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}"
    "{% for message in messages %}{% if (message['role'] == 'assistant') %}"
    "{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
_GEMMA3 = """\
{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else "") }}
    {{- message['content'] | trim }}
    {{- '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{'<start_of_turn>model\n'}}
{%- endif -%}
"""
_GEMMA_TOKENS = ("<start_of_turn>", "<end_of_turn>")
_MISTRAL = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\\n\\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- endif %}
{%- endfor %}
"""
_MISTRAL_V1 = (
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}"
    "{{ message['content'] + eos_token}}{% else %}"
    "{{ raise_exception('Only user and assistant roles are supported!') }}{% endif %}{% endfor %}"
)
_MINICPM = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{'<用户>' + message['content'].strip() + '<AI>'}}{% else %}"
    "{{message['content'].strip()}}{% endif %}{% endfor %}"
)
_ZEPHYR = """\
{% for message in messages %}
{% if message['role'] == 'user' %}
{{ '<|user|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'system' %}
{{ '<|system|>\n' + message['content'] + eos_token }}
{% elif message['role'] == 'assistant' %}
{{ '<|assistant|>\n'  + message['content'] + eos_token }}
{% endif %}
{% if loop.last and add_generation_prompt %}
{{ '<|assistant|>' }}
{% endif %}
{% endfor %}
"""
# There is no template in its tokenizer; this is the format of the model card.
_REDPAJAMA = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '<human>: ' + message['content'] + '\n' }}{% else %}"
    "{{ '<bot>: ' + message['content'] + '\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<bot>:' }}{% endif %}"
)

PUBLISHED: dict[str, Published] = {
    "Llama 3": Published(
        "llama-3",
        "{{ bos_token }}{% for message in messages %}"
        + _LLAMA3_MESSAGE
        + "{% endfor %}"
        + _LLAMA3_END,
        _LLAMA3_TOKENS,
        "<|begin_of_text|>",
        "<|eot_id|>",
    ),
    "Llama 3.2": Published(
        "llama-3.1", _LLAMA31, _LLAMA3_TOKENS, "<|begin_of_text|>", "<|eot_id|>"
    ),
    "Qwen2": Published("qwen2", _chatml("You are a helpful assistant."), _IM, "", "<|im_end|>"),
    "MiniCPM4": Published(
        "chatml",
        "{% for message in messages %}" + _CHATML + "{% endfor %}" + _CHATML_END,
        _IM,
        "",
        "<|im_end|>",
    ),
    "Qwen2.5": Published(
        "qwen2.5",
        _chatml("You are Qwen, created by Alibaba Cloud. You are a helpful assistant."),
        _IM,
        "",
        "<|im_end|>",
    ),
    "SmolLM2": Published(
        "smollm2",
        _chatml("You are a helpful AI assistant named SmolLM, trained by Hugging Face"),
        _IM,
        "",
        "<|im_end|>",
    ),
    "Qwen3": Published("qwen3", _QWEN3, _IM, "", "<|im_end|>"),
    "Phi-3.5": Published("phi-3", _PHI3, _PHI_TOKENS, "", "<|endoftext|>"),
    "Phi-4-mini": Published("phi-4-mini", _PHI4_MINI, _PHI_TOKENS, "", "<|endoftext|>"),
    "Gemma 2": Published("gemma", _GEMMA2, _GEMMA_TOKENS, "<bos>", "<eos>", system=False),
    "Gemma 3": Published("gemma", _GEMMA3, _GEMMA_TOKENS, "<bos>", "<eos>"),
    "Mistral 7B v0.3": Published(
        "mistral", _MISTRAL, ("[INST]", "[/INST]"), "<s>", "</s>", system=False
    ),
    "Mistral 7B v0.2": Published("mistral-v1", _MISTRAL_V1, (), "<s>", "</s>", system=False),
    "MiniCPM 2B": Published("minicpm", _MINICPM, ("<用户>", "<AI>"), "", "</s>"),
    "TinyLlama": Published("zephyr", _ZEPHYR, (), "", "</s>"),
    "StableLM 2 Zephyr": Published("stablelm", _ZEPHYR, (), "", "<|endoftext|>"),
    "RedPajama": Published("redpajama", _REDPAJAMA, (), "", "<|endoftext|>", system=False),
}
"""By the name of the model."""

# Formats that a list of strings between messages can't say, and no template of ours is.
INEXPRESSIBLE: dict[str, tuple[str, tuple[str, ...]]] = {
    # Each answer has parts in channels, of which a later prompt keeps one.
    "gpt-oss": (
        (
            "{{ '<|start|>system<|message|>' }}{% for message in messages %}"
            "{{ '<|start|>' + message.role + '<|channel|>final<|message|>' + message.content }}"
            "{% endfor %}"
        ),
        ("<|start|>", "<|message|>", "<|channel|>", "<|end|>"),
    ),
    # The number of the turn stands in the prompt.
    "ChatGLM2": (
        (
            "{% for message in messages %}{% if loop.index0 % 2 == 0 %}"
            "[Round {{ loop.index0 // 2 + 1 }}]\n\n问:{{ message['content'] }}{% endif %}{% endfor %}"
        ),
        (),
    ),
    "Command R": (
        "{{ '<|START_OF_TURN_TOKEN|><|SYSTEM_TOKEN|>' + system + '<|END_OF_TURN_TOKEN|>' }}",
        ("<|START_OF_TURN_TOKEN|>", "<|END_OF_TURN_TOKEN|>"),
    ),
}
