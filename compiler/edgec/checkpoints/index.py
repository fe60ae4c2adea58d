"""``model.safetensors.index.json``: which shard holds which tensor."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from edgec.checkpoints.json_file import read_json_object
from edgec.errors import CheckpointError

if TYPE_CHECKING:
    from pathlib import Path

INDEX_NAME = "model.safetensors.index.json"


def read_index(path: Path) -> dict[str, str]:
    """Read an index.

    Returns:
        The name of the shard file for each tensor's name. Shard names are plain file names: an
        index can't point out of its folder.

    Raises:
        CheckpointError: the file is missing, damaged, or names a shard that is no plain
            ``*.safetensors`` file name.
    """
    document = read_json_object(path, missing="download the model again")
    shards = document.get("weight_map")
    if not isinstance(shards, dict) or not shards:
        raise CheckpointError(
            "its weight_map is not an object that maps tensors to files",
            where=str(path),
            remedy="download the file again",
        )
    for tensor, shard in shards.items():
        if not isinstance(shard, str) or not _plain(shard):
            raise CheckpointError(
                f"weight_map sends tensor {tensor!r} to {shard!r:.200}, which is not the name of a "
                "safetensors file in the same folder",
                where=str(path),
                remedy="put the shards beside the index and name them without a path",
            )
    return shards


def _plain(name: str) -> bool:
    return (
        name.endswith(".safetensors")
        and name.isprintable()
        and PurePosixPath(name).name == name
        and PureWindowsPath(name).name == name
    )
