"""``model.json``: what the first stage learns of a model and the later ones read without TVM."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from edgec.checkpoints.codes import CodesForm
from edgec.files import pretty_json
from edgec.models.parameters import Parameter, Source

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NAME = "model.json"


@dataclass(frozen=True)
class ModelFile:
    """A checked model.

    Attributes:
        family: name of the family's module.
        config: the checkpoint's ``config.json``.
        parameters: in order of definition.
        files: names of tokenizer and config files that lie beside this one.
        codes: the tensors that the checkpoint holds as codes, by name.
    """

    family: str
    config: dict[str, Any]
    parameters: tuple[Parameter, ...]
    files: tuple[str, ...]
    codes: Mapping[str, CodesForm] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write ``model.json``."""
        (folder / NAME).write_text(pretty_json(asdict(self)))

    @classmethod
    def read(cls, folder: Path) -> ModelFile:
        """Read what :meth:`write` wrote."""
        data = json.loads((folder / NAME).read_text())
        parameters = tuple(
            Parameter(
                item["name"],
                tuple(item["shape"]),
                item["role"],
                tuple(
                    Source(
                        source["name"],
                        tuple(source["shape"]),
                        tuple(source["interleaved"]),
                        source["offset"],
                    )
                    for source in item["sources"]
                ),
                item["decode_rows"],
                item["matrices"],
            )
            for item in data["parameters"]
        )
        codes = {name: CodesForm(**form) for name, form in data["codes"].items()}
        return cls(data["family"], data["config"], parameters, tuple(data["files"]), codes)

    @property
    def sources(self) -> list[Source]:
        """Every checkpoint tensor that the model reads."""
        return [source for parameter in self.parameters for source in parameter.sources]
