"""How a chat becomes a prompt: ``mlc-chat-config.json``, from the tokenizer and the recipe.

It needs small files only, so a template that doesn't fit fails the build early.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgec.artifacts.chat_config import chat_config
from edgec.artifacts.layout import CHAT_CONFIG
from edgec.files import pretty_json
from edgec.models.images import ImageInput
from edgec.stages.context_inputs import read_window
from edgec.stages.model_file import ModelFile

if TYPE_CHECKING:
    from edgec.stages.context import StageContext

_GENERATION = "generation."


def run(context: StageContext) -> None:
    """Write the chat config."""
    inputs, folder = context.inputs, context.parents["checkpoint"]
    model = ModelFile.read(folder)
    config = chat_config(
        model_type=model.family,
        quantization=str(inputs["quantization.scheme"]),
        config=model.config,
        tokenizer_folder=folder,
        tokenizer_files=model.files,
        context_length=int(inputs["context.length"]),
        prefill_chunk=int(inputs["context.prefill_chunk"]),
        max_batch_size=int(inputs["context.max_batch_size"]),
        window=read_window(inputs),
        image=ImageInput.of(model.config, inputs["image.size"]),
        generation={
            key.removeprefix(_GENERATION): value
            for key, value in inputs.items()
            if key.startswith(_GENERATION)
        },
        template=inputs["chat.template"],
        always_system=bool(inputs["chat.always_system"]),
    )
    (context.out / CHAT_CONFIG).write_text(pretty_json(config))
