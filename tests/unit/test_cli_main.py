import json
import os
import subprocess
import sys
from collections.abc import Callable

import click
import pytest
from cli_calls import call

from edgec import __version__
from edgec.cli import main
from edgec.cli.main import cli
from edgec.cli.options import json_option
from edgec.cli.settings import settings
from edgec.errors import (
    BuildError,
    CacheError,
    CheckpointError,
    EdgecError,
    ToolchainError,
    UnsupportedModelError,
    UsageError,
    VerificationError,
)

COMMANDS = [name for section in main._SECTIONS.values() for name in section]
CONTEXT = click.Context(cli, info_name="edgec")


Failing = Callable[[BaseException], None]


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Failing:
    """Make ``edgec doctor`` a command that raises."""

    def prepare(error: BaseException) -> None:
        @click.command()
        @json_option
        def command(*, as_json: bool) -> None:
            raise error

        def get(_group: object, _context: object, _name: str) -> click.Command:
            return command

        monkeypatch.setattr(type(cli), "get_command", get)

    return prepare


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from edgec.cli.main import run; assert run(['--help']) == 0;"
        "print(sorted({name.partition('.')[0] for name in sys.modules}"
        " & {'numpy', 'pydantic', 'torch', 'tvm', 'yaml', 'rich', 'platformdirs'}),"
        "file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
    for name in COMMANDS:
        assert f"\n  {name} " in done.stdout


def test_without_a_command_the_help_is_printed() -> None:
    assert call() == call("--help")
    assert call("cache").code == 0
    assert "gc " in call("cache").out


def test_version() -> None:
    assert call("--version").out == f"edgec {__version__}\n"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_commands_line_in_the_table_is_that_of_its_help(name: str) -> None:
    command = cli.get_command(CONTEXT, name)
    assert command is not None
    lines = {name: line for section in main._SECTIONS.values() for name, line in section.items()}
    assert command.get_short_help_str(limit=200) == lines[name]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_json_and_an_example(name: str) -> None:
    command = cli.get_command(CONTEXT, name)
    leaves = command.commands.values() if isinstance(command, click.Group) else [command]
    for leaf in leaves:
        assert "as_json" in [parameter.name for parameter in leaf.params], leaf.name
        with click.Context(leaf, info_name=leaf.name, parent=CONTEXT) as context:
            assert "  edgec " in context.get_help().partition("Example:")[2]


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BuildError, 1),
        (CheckpointError, 1),
        (UsageError, 2),
        (UnsupportedModelError, 3),
        (ToolchainError, 4),
        (VerificationError, 5),
        (CacheError, 6),
    ],
)
def test_errors_are_one_sentence_and_an_exit_code(
    failing: Failing, error: type[EdgecError], code: int
) -> None:
    failing(error("it is broken", where="a.yaml:3:1", remedy="mend it"))
    called = call("doctor")
    assert called.code == code
    assert called.err == "error: a.yaml:3:1: it is broken; mend it\n"
    assert called.out == ""


def test_errors_as_json(failing: Failing) -> None:
    failing(CacheError("it is full", where="/cache", remedy="clean it"))
    called = call("doctor", "--json")
    assert called.events == [
        {
            "schema": "edgec.error/v1",
            "kind": "cache",
            "what": "it is full",
            "where": "/cache",
            "remedy": "clean it",
            "exit_code": 6,
        }
    ]
    assert "error: /cache: it is full; clean it" in called.err


def test_verbose_prints_where_an_error_came_from(failing: Failing) -> None:
    cause = ZeroDivisionError("the cause")
    error = BuildError("it failed")
    error.__cause__ = cause
    failing(error)
    assert "the cause" not in call("doctor").err
    assert "ZeroDivisionError: the cause" in call("-v", "doctor").err


def test_a_bug_keeps_its_traceback(failing: Failing) -> None:
    failing(ZeroDivisionError("oh"))
    called = call("doctor", "--json")
    assert called.code == 1
    assert "Traceback" in called.err
    assert "this is a bug in edgec" in called.err
    assert called.data["kind"] == "bug"


def test_an_interrupt_has_the_shells_exit_code(failing: Failing) -> None:
    failing(KeyboardInterrupt())
    called = call("doctor")
    assert called.code == 130
    assert "Traceback" not in called.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["bild"], "there is no command 'bild'; did you mean build?"),
        (["cache", "lst"], "there is no command 'lst'; did you mean list?"),
        (["build"], "edgec build: missing argument 'RECIPE'; see edgec build --help"),
        (["targets", "--jsn"], "edgec targets: no such option '--jsn'"),
        (["build", "tinypy", "-j", "0"], "edgec build: invalid value for '-j' / '--jobs'"),
    ],
)
def test_wrong_words(words: list[str], message: str) -> None:
    called = call(*words)
    assert called.code == 2
    assert called.err.startswith(f"error: {message}")
    assert len(called.err.splitlines()) == 1


def test_wrong_words_as_json() -> None:
    called = call("targets", "--json", "--what")
    assert called.data["kind"] == "usage"
    assert called.data["exit_code"] == 2


def test_a_reader_that_leaves_early_sees_no_complaint() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "edgec", "schema", "recipe"],
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (1, b"")


def test_settings_are_those_of_the_running_command(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    @click.command()
    @json_option
    def command(*, as_json: bool) -> None:
        found = settings()
        seen.append((found.quiet, found.verbose, found.as_json, as_json))

    monkeypatch.setattr(type(cli), "get_command", lambda *_args: command)
    call("doctor")
    call("-q", "-v", "doctor", "--json")
    assert seen == [(False, False, False, False), (True, True, True, True)]
    assert not settings().quiet


def test_the_error_object_is_one_line(failing: Failing) -> None:
    failing(UsageError("two problems\n  one\n  two"))
    lines = call("doctor", "--json").out.splitlines()
    assert len(lines) == 1
    assert json.loads(lines[0])["what"].count("\n") == 2


def test_no_color_is_respected() -> None:
    code = (
        "import sys; from edgec.cli.main import run\n"
        "sys.stderr.isatty = sys.stdout.isatty = lambda: True\n"
        "run(['targets']); run(['build', 'nothing'])"
    )

    def printed(**variables: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, **variables},
        )
        return done.stdout + done.stderr

    assert "\x1b[" in printed(NO_COLOR="")
    assert "\x1b[" not in printed(NO_COLOR="1")
