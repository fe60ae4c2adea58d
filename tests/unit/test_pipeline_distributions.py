import json
from pathlib import Path

import pytest

from edgec.errors import ToolchainError
from edgec.pipeline import distributions
from edgec.pipeline.distributions import Installed, installed

RECORD = """\
toy/__init__.py,sha256=AAAA,10
toy/lib.so,sha256=BBBB,99
toy/__pycache__/__init__.cpython-311.pyc,,
toy_wheel-1.0.dist-info/METADATA,sha256=CCCC,5
toy_wheel-1.0.dist-info/INSTALLER,sha256={installer},4
toy_wheel-1.0.dist-info/RECORD,,
../../../bin/toy,sha256={script},200
"""


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    site = tmp_path / "site"
    (site / "toy_wheel-1.0.dist-info").mkdir(parents=True)
    (site / "toy_wheel-1.0.dist-info" / "METADATA").write_text("Name: toy-wheel\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(site)
    installed.cache_clear()
    return site


def look(site: Path, **files: str) -> Installed:
    for name, text in files.items():
        (site / "toy_wheel-1.0.dist-info" / name.replace("_json", ".json")).write_text(text)
    installed.cache_clear()
    return installed("toy-wheel")


def test_a_wheel_is_known_by_the_files_that_came_with_it(site: Path) -> None:
    first = look(site, RECORD=RECORD.format(installer="pip", script="venv1"))
    elsewhere = look(site, RECORD=RECORD.format(installer="uv", script="venv2"))
    rebuilt = look(site, RECORD=RECORD.format(installer="pip", script="venv1").replace("BB", "DD"))

    assert first.version == "1.0"
    assert first == elsewhere
    assert first != rebuilt


def test_an_editable_installation_is_known_by_its_sources(site: Path, tmp_path: Path) -> None:
    project = tmp_path / "my project"
    for folder in ("toy", ".git", "env"):
        (project / folder).mkdir(parents=True)
    (project / "env" / "pyvenv.cfg").touch()
    (project / "toy" / "__init__.py").write_text("a = 1")
    (project / "toy" / "lib.so").write_bytes(b"elf")
    url = json.dumps({"url": project.as_uri(), "dir_info": {"editable": True}})

    first = look(site, RECORD="", direct_url_json=url)
    for unrelated in ("toy/notes.txt", ".git/hook.py", "toy/x.pyc"):
        (project / unrelated).write_text("x")
    (project / "env" / "lib").mkdir()
    (project / "env" / "lib" / "x.py").write_text("x")
    assert look(site) == first
    (project / "toy" / "lib.so").write_bytes(b"ELF")
    assert look(site) != first


def test_a_missing_distribution(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ToolchainError) as caught:
        installed("no-such-wheel")
    assert str(caught.value) == (
        "no-such-wheel: is not installed in this Python environment;"
        " run `pip install 'no-such-wheel'`"
    )

    needs = ['Torch_Vision>=2.5; extra == "reference"', "no.such_wheel==1.2"]
    monkeypatch.setattr(distributions.metadata, "requires", lambda _: needs)
    with pytest.raises(ToolchainError, match=r"run `pip install 'no\.such_wheel==1\.2'`"):
        installed("no-such-wheel")
    with pytest.raises(ToolchainError, match=r"run `pip install 'Torch_Vision>=2\.5'`"):
        installed("torch-vision")


def test_a_distribution_without_a_list_of_files(site: Path) -> None:
    with pytest.raises(ToolchainError, match=r"without a list of its files .*--force-reinstall"):
        look(site)
