"""What the documentation names exists: links, commands, options, and names in its code."""

from __future__ import annotations

import ast
import importlib.util
import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import pytest

from edgec import yamlfile
from edgec.artifacts.conversation import ConversationTemplate
from edgec.cli.main import cli
from edgec.errors import UsageError
from edgec.recipe import GenericRecipe, Recipe
from edgec.target.schema import Profile
from edgec.validation.validate import validate

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "artifacts" / "README.md",
    ROOT / "benchmarks" / "README.md",
    *sorted((ROOT / "docs").rglob("*.md")),
]
EACH = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
# Between the parts of a shell's line.
SHELL = re.compile(r"&&|\||\$\(|\)$| > | < ")
SCHEMAS: dict[str, Any] = {
    "edgec.recipe/v1": Recipe,
    "edgec.target/v1": Profile,
    "edgec.conversation/v1": ConversationTemplate,
}


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return [text for name, text in BLOCK.findall(page.read_text("utf-8")) if name == language]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return BLOCK.sub("", page.read_text("utf-8"))


def anchors(page: Path) -> set[str]:
    """What may follow the ``#`` of a link to this page, as Git hosts make it from headings."""
    titles = re.findall(r"^#+ (.*)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands(page: Path) -> Iterator[list[str]]:
    """The words after ``edgec`` in every call of it, in blocks and between backquotes."""
    lines = [line for text in blocks(page, "sh") for line in text.splitlines()]
    shown = [line for text in blocks(page, "console") for line in text.splitlines()]
    lines += [line.removeprefix("$ ") for line in shown if line.startswith("$ ")]
    lines += [found.replace("\n", " ") for found in re.findall(r"`(edgec [^`]*)`", prose(page))]
    for line in lines:
        for part in SHELL.split(line):
            words = shlex.split(part, comments=True)
            while words and "=" in words[0]:
                words.pop(0)  # a variable of the environment
            if words[:1] == ["edgec"]:
                yield [word for word in words[1:] if word != "..."]


def problem(words: list[str]) -> str:
    """What the command line would say of these words; empty if it takes them.

    Nothing is run. Arguments may be missing, as where a command is only named.
    """
    command: click.Command = cli
    context = click.Context(cli, info_name="edgec")
    rest = list(words)
    try:
        while isinstance(command, click.Group):
            flags = [word for word in command.params if rest and rest[0] in word.opts]
            if flags:
                rest.pop(0)
            elif rest:
                name, inner, rest = command.resolve_command(context, rest)
                assert inner is not None, name
                command, context = inner, click.Context(inner, context, name)
            else:
                return ""
        command.make_context(context.info_name, rest, context.parent)
    except click.MissingParameter:
        return ""
    except (click.ClickException, UsageError) as error:
        return f"edgec {shlex.join(words)}: {error}"
    return ""


def defined(module: str) -> set[str]:
    """What a module of ours defines or imports at its top level; it is not imported."""
    spec = importlib.util.find_spec(module)
    assert spec is not None, module
    assert spec.origin is not None, module
    file = Path(spec.origin)
    found = {path.stem for path in file.parent.glob("*.py") if file.stem == "__init__"}
    for node in ast.parse(file.read_text("utf-8")).body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, (ast.Import, ast.ImportFrom)):
            found.update(alias.asname or alias.name for alias in node.names)
        elif isinstance(node, (ast.Assign, ast.AnnAssign)):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found.update(target.id for target in targets if isinstance(target, ast.Name))
    return found


@EACH
def test_links_lead_somewhere(page: Path) -> None:
    for link in LINK.findall(page.read_text("utf-8")):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@EACH
def test_commands_and_options_exist(page: Path) -> None:
    assert [found for found in map(problem, commands(page)) if found] == []


def test_commands_are_found_and_wrong_ones_refused() -> None:
    found = [words for page in PAGES for words in commands(page)]
    assert ["build", "tinypy"] in found
    assert len(found) > 40
    assert "no such option" in problem(["build", "tinypy", "--nothing"]).lower()
    assert "no such option" in problem(["--quiet", "cache", "gc", "--nothing"]).lower()
    assert "there is no command 'biuld'" in problem(["biuld"])


@EACH
def test_code_imports_what_exists(page: Path) -> None:
    for text in blocks(page, "python"):
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("edgec"):
                assert node.module is not None
                missing = {alias.name for alias in node.names} - defined(node.module)
                assert not missing, node.module


@EACH
def test_whole_yaml_files_are_valid(page: Path) -> None:
    for text in blocks(page, "yaml"):
        document = yamlfile.parse(text, page.name)
        if isinstance(document.data, dict) and "schema" in document.data:
            generic = document.data.get("kind") == "generic"
            validate(GenericRecipe if generic else SCHEMAS[document.data["schema"]], document)
