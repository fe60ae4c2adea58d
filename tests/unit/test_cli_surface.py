"""The commands and options are a promise to scripts: a change has to touch a file on purpose."""

from collections.abc import Iterator
from pathlib import Path

import click

from edgec.cli.main import cli

FILE = Path(__file__).with_name("cli_surface.txt")


def surface(command: click.Command, path: str = "edgec") -> Iterator[str]:
    """A line per command, and an indented one per argument and option."""
    yield path
    for parameter in command.params:
        yield f"  {_line(parameter)}"
    if isinstance(command, click.Group):
        context = click.Context(command, info_name=path)
        for name in sorted(command.list_commands(context)):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from surface(inner, f"{path} {name}")


def _line(parameter: click.Parameter) -> str:
    choices = ""
    if isinstance(parameter.type, click.Choice):
        choices = f" {'|'.join(parameter.type.choices)}"
    if isinstance(parameter, click.Argument):
        name = str(parameter.name).upper()
        return f"{name if parameter.required else f'[{name}]'} ({parameter.name}){choices}"
    assert isinstance(parameter, click.Option)
    words = ", ".join([*parameter.opts, *parameter.secondary_opts]) + choices
    marks = [
        mark
        for mark, is_set in (
            ("flag", parameter.is_flag),
            ("multiple", parameter.multiple),
            ("required", parameter.required),
            (f"env {parameter.envvar}", bool(parameter.envvar)),
        )
        if is_set
    ]
    return " ".join([words, f"({parameter.name})", *marks])


def test_commands_and_options_are_frozen() -> None:
    assert FILE.read_text().splitlines() == list(surface(cli)), (
        f"if the change is meant, run: python {Path(__file__).name} > {FILE.name}"
    )


if __name__ == "__main__":
    click.echo("\n".join(surface(cli)))
