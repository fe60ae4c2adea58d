"""Where a model and its evaluation text come from, as recipes write it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal
from urllib.parse import urlsplit

from edgec.validation.types import refused

_HUB_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}")
_REVISION = re.compile(r"(?!.*(\.\.|//))[A-Za-z0-9_][A-Za-z0-9._/-]{0,255}")
# One letter before the colon is a drive.
_PREFIX = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):")


@dataclass(frozen=True)
class ModelReference:
    """A parsed ``model.source``.

    Attributes:
        kind: ``"hub"``, ``"folder"`` (or a GGUF file) or ``"synthetic"``.
        location: ``ORG/NAME``, or a path relative to the recipe's folder (or absolute).
        revision: a branch, tag or commit on the hub; None is the default branch.
    """

    kind: Literal["hub", "folder", "synthetic"]
    location: str
    revision: str | None = None


@dataclass(frozen=True)
class GenericReference:
    """A parsed ``model.source`` of a generic recipe.

    Attributes:
        kind: ``"hub"``, ``"folder"`` or ``"synthetic"`` as in :class:`ModelReference`; ``"onnx"`` or
            ``"exported"`` (a file of torch) for a file; ``"torch"`` for a function of a Python file.
        location: ``ORG/NAME``, or a path relative to the recipe's folder (or absolute).
        revision: of a hub model.
        function: of a Python file.
    """

    kind: Literal["hub", "folder", "synthetic", "onnx", "exported", "torch"]
    location: str
    revision: str | None = None
    function: str | None = None


@dataclass(frozen=True)
class TextReference:
    """A parsed ``quality.text``.

    Attributes:
        kind: ``"stdlib"`` (modules of the running interpreter) or ``"path"``.
        location: the file that lists the modules, or a text file or folder of text files;
            relative to the recipe's folder (or absolute).
    """

    kind: Literal["stdlib", "path"]
    location: str


def parse_model_source(text: str) -> ModelReference:
    """Read ``hf:ORG/NAME@REV``, ``synthetic:CONFIG.json``, a folder or a GGUF file.

    Raises:
        pydantic_core.PydanticCustomError: the text is none of these.
    """
    prefix, rest = _split(text, ("hf", "synthetic"))
    if prefix == "hf":
        return _hub(text, rest)
    if prefix == "synthetic":
        return ModelReference("synthetic", _path(rest, "synthetic:my-model/config.json"))
    return ModelReference("folder", _path(text, "my-model"))


def parse_generic_source(text: str) -> GenericReference:
    """Read what :func:`parse_model_source` does, an ``.onnx`` or ``.pt2`` file, or a function.

    Raises:
        pydantic_core.PydanticCustomError: the text is none of these.
    """
    prefix, rest = _split(text, ("hf", "synthetic", "torch"))
    if prefix == "torch":
        file, separator, function = rest.rpartition(":")
        if not separator or not file.endswith(".py") or not function.isidentifier():
            raise refused(
                f"{text[:80]!r} doesn't name a function of a Python file",
                "write torch:FILE.py:FUNCTION, for example torch:my_model.py:make",
            )
        return GenericReference("torch", _path(file, "my_model.py"), function=function)
    if not prefix and text.endswith(".onnx"):
        return GenericReference("onnx", _path(text, "my-model.onnx"))
    if not prefix and text.endswith(".pt2"):
        return GenericReference("exported", _path(text, "my-model.pt2"))
    model = parse_model_source(text)
    return GenericReference(model.kind, model.location, model.revision)


def parse_text_source(text: str) -> TextReference:
    """Read ``stdlib:LISTFILE`` or the path of a text file or folder.

    Raises:
        pydantic_core.PydanticCustomError: the text is neither.
    """
    prefix, rest = _split(text, ("stdlib",))
    if prefix == "stdlib":
        return TextReference("stdlib", _path(rest, "stdlib:my-model/modules.txt"))
    return TextReference("path", _path(text, "my-model/evaluation.txt"))


def _split(text: str, known: tuple[str, ...]) -> tuple[str, str]:
    found = _PREFIX.match(text)
    if found is None:
        return "", text
    prefix, rest = found.group(1), text[found.end() :]
    if prefix in known:
        return prefix, rest
    if prefix.lower() in ("http", "https"):
        raise refused(f"{text[:80]!r} is an address on the web", _instead_of_address(text, known))
    if prefix.lower() in known:
        raise refused(f"the prefix {prefix}: is unknown", f"write {prefix.lower()}:{rest[:80]}")
    kinds = " or ".join(f"{name}:" for name in known)
    raise refused(f"the prefix {prefix[:40]}: is unknown", f"write {kinds} or a path")


def _instead_of_address(text: str, known: tuple[str, ...]) -> str:
    if "hf" not in known:
        return "download it, and give its path relative to the recipe"
    address = urlsplit(text) if "[" not in text and "]" not in text else None
    if address is not None and address.hostname in (
        "huggingface.co",
        "www.huggingface.co",
        "hf.co",
    ):
        name = "/".join(address.path.split("/")[1:3])
        if _HUB_NAME.fullmatch(name):
            return f"write hf:{name}"
    return (
        "write hf:ORG/NAME for a model of the Hugging Face hub, or download it and give its folder"
    )


def _hub(text: str, rest: str) -> ModelReference:
    name, separator, revision = rest.partition("@")
    if not _HUB_NAME.fullmatch(name):
        raise refused(
            f"{text[:80]!r} doesn't name a model",
            "write hf:ORG/NAME or hf:ORG/NAME@REVISION, for example "
            "hf:HuggingFaceTB/SmolLM2-135M@main",
        )
    if separator and not _REVISION.fullmatch(revision):
        raise refused(
            f"{revision[:80]!r} isn't a revision",
            "write a branch, a tag or a commit after '@', or leave '@' out",
        )
    return ModelReference("hub", name, revision or None)


def _path(text: str, example: str) -> str:
    if not text.strip() or text != text.strip() or "\n" in text:
        raise refused("a path is missing or has spaces around it", f"write for example {example}")
    if text.startswith("~"):
        raise refused("'~' isn't expanded in recipes", "write the whole path")
    return text
