"""What the commands that use a built model have in common: how it is named and loaded."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from edgec.artifacts.artifact import Artifact

Command = TypeVar("Command", bound=Callable[..., Any])


def artifact_argument(command: Command) -> Command:
    """``ARTIFACT``, as the parameter ``artifact``: a name or a path, for ``locate_artifact``."""
    return click.argument("artifact")(command)


def threads_option(command: Command) -> Command:
    """``--threads``, as the parameter ``threads``; None if it isn't given."""
    return click.option(
        "--threads",
        type=click.IntRange(min=1),
        metavar="N",
        help="Threads to compute with.  [default: one per core]",
    )(command)


def context_option(command: Command) -> Command:
    """``--context``, as the parameter ``context``; None if it isn't given."""
    return click.option(
        "--context",
        type=click.IntRange(min=1),
        metavar="N",
        help="Tokens to make room for in the KV cache.  [default: what the artifact was built for]",
    )(command)


def title(artifact: Artifact) -> str:
    """What an artifact is, in a few words."""
    manifest = artifact.manifest
    scheme = manifest["quantization"]["scheme"]
    return f"{manifest['name']} for {manifest['target']}, {scheme}"
