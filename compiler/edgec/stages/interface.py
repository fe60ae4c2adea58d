"""What a generic artifact says of itself: ``edgec-model.json``, and what engines read of embeddings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from edgec.artifacts.chat_config import chat_config
from edgec.artifacts.conversation import COMPLETION
from edgec.artifacts.interface import INTERFACE, read_interface
from edgec.artifacts.layout import CHAT_CONFIG
from edgec.artifacts.library_metadata import embedding_metadata
from edgec.files import pretty_json
from edgec.stages.model_file import ModelFile

if TYPE_CHECKING:
    from edgec.stages.context import StageContext


def run(context: StageContext) -> None:
    """Write the files."""
    folder = context.parents["checkpoint"]
    interface, model = read_interface(folder / INTERFACE), ModelFile.read(folder)
    interface.write(context.out)
    if interface.embedding is None:
        return
    config: dict[str, Any] = {
        **chat_config(
            model_type=model.family,
            quantization=str(context.inputs["quantization.scheme"]),
            config={"vocab_size": 0, **model.config},
            tokenizer_folder=folder,
            tokenizer_files=model.files,
            context_length=interface.length,
            prefill_chunk=interface.length,
            max_batch_size=interface.batch,
            generation={},
            template=COMPLETION,
        ),
        "model_task": "embedding",
        "embedding_metadata": embedding_metadata(model.family, interface.embedding),
    }
    (context.out / CHAT_CONFIG).write_text(pretty_json(config))
