"""Calls of the command line inside this process, for its tests."""

import json
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import StringIO
from typing import Any

from edgec.cli.main import run


@dataclass(frozen=True)
class Called:
    code: int
    out: str
    err: str

    @property
    def data(self) -> Any:
        """The one JSON object that was printed."""
        return json.loads(self.out)

    @property
    def events(self) -> list[Any]:
        """The JSON objects that were printed, one per line."""
        return [json.loads(line) for line in self.out.splitlines()]


def call(*args: str) -> Called:
    out, err = StringIO(), StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        code = run(args)
    return Called(code, out.getvalue(), err.getvalue())
