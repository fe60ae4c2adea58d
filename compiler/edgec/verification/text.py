"""Evaluation text: where it comes from, and how it is cut into windows of tokens."""

from __future__ import annotations

import sysconfig
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from edgec.errors import UsageError
from edgec.files import digest_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

_STDLIB = "stdlib:"
_SUFFIXES = (".txt", ".md", ".py")
_SHORTEST = 2  # a window of one token predicts nothing


@dataclass(frozen=True)
class Document:
    """One text that stands on its own.

    Attributes:
        name: a relative path with ``/``, for reports.
        text: its content; line ends are single newlines.
    """

    name: str
    text: str


def load_documents(source: str, base: Path) -> list[Document]:
    """Read evaluation text.

    Args:
        source: ``stdlib:LISTFILE``, where the file names modules of the running interpreter's
            standard library, one path per line (``json/decoder.py``; ``#`` begins a comment; those
            this interpreter lacks are skipped); or a text file; or a folder, of which all
            ``*.txt``, ``*.md`` and ``*.py`` files are read in the order of their paths.
        base: the folder that relative paths start from.

    Raises:
        UsageError: there is no such file or folder, it holds no text, or it isn't UTF-8.
    """
    if source.startswith(_STDLIB):
        return _standard_library(base / source.removeprefix(_STDLIB))
    path = base / source
    if path.is_dir():
        found = [
            (file.relative_to(path).as_posix(), file)
            for file in path.rglob("*")
            if file.suffix in _SUFFIXES and file.is_file()
        ]
        documents = [Document(name, _read(file)) for name, file in sorted(found)]
        nothing = f"the folder has no {', '.join(f'*{suffix}' for suffix in _SUFFIXES)} with text"
    else:
        documents = [Document(path.name, _read(path))]
        nothing = "the file has no text"
    return _not_empty(documents, path, nothing, "name a file or folder with text")


def text_digest(documents: Iterable[Document]) -> str:
    """The sha256 of names and texts, 64 hex digits."""
    return digest_json([[document.name, document.text] for document in documents])


def windows(
    documents: Sequence[Document],
    encode: Callable[[str], list[int]],
    bos: int | None,
    window: int,
    tokens: int,
) -> list[list[int]]:
    """Cut documents into windows, each of which is a context of its own.

    A document is its tokens after ``bos``, cut into consecutive windows; a rest of one token is
    left out. Documents are used in their order until there are ``tokens`` tokens; the last window
    is cut short to meet that number, or one token is left out where a window of one would remain.

    Args:
        documents: the text.
        encode: text to token ids, without special tokens.
        bos: the token that begins a text; None if the model has none.
        window: most tokens of a window, at least 2.
        tokens: most tokens of all windows together, at least 2.

    Returns:
        Windows of 2 to ``window`` tokens.

    Raises:
        UsageError: the text is too short for a single window.
    """
    assert window >= _SHORTEST, window
    assert tokens >= _SHORTEST, tokens
    cut: list[list[int]] = []
    left = tokens
    for document in documents:
        ids = ([] if bos is None else [bos]) + encode(document.text)
        for start in range(0, len(ids), window):
            part = ids[start : start + min(window, left)]
            if len(part) >= _SHORTEST:
                cut.append(part)
                left -= len(part)
            if left < _SHORTEST:
                return cut
    if not cut:
        raise UsageError(
            "the evaluation text has fewer than two tokens",
            where="quality.text",
            remedy="name a longer text",
        )
    return cut


def _standard_library(listing: Path) -> list[Document]:
    library = Path(sysconfig.get_path("stdlib"))
    documents = []
    for number, line in enumerate(_read(listing).splitlines(), 1):
        name = line.partition("#")[0].strip()
        if not name:
            continue
        relative = PurePosixPath(name)
        if relative.is_absolute() or ".." in relative.parts:
            raise UsageError(
                f"{name!r} leads out of the standard library",
                where=f"{listing}:{number}",
                remedy="write a path such as json/decoder.py",
            )
        if (library / relative).is_file():
            documents.append(Document(name, _read(library / relative)))
    nothing = f"none of the modules it names is in {library}"
    return _not_empty(documents, listing, nothing, "name modules of this interpreter's library")


def _not_empty(documents: list[Document], where: Path, what: str, remedy: str) -> list[Document]:
    if not any(document.text.strip() for document in documents):
        raise UsageError(what, where=str(where), remedy=remedy)
    return documents


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UsageError(
            f"can't be read: {error.strerror}",
            where=str(path),
            remedy="name an existing text file or folder, relative to the recipe",
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(
            f"byte {error.start} is not UTF-8 text",
            where=str(path),
            remedy="convert the file to UTF-8",
        ) from error
