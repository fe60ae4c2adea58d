"""The Java code of Android packages, compiled and run against stand-ins for Android and Play."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from package_fakes import phone_artifact

from edgec.packaging.package import Package, plan_package

STUBS = Path(__file__).parent / "android_stubs"
MODULE = "android/edgec-models/src/main"
MAIN = """
import android.content.Context;
import edgec.models.ModelFolder;
import edgec.models.PackagedModel;
import java.io.File;

public class Main {
  public static void main(String[] args) throws Exception {
    Context context = new Context(new File(args[0]));
    for (PackagedModel model : PackagedModel.all(context)) {
      System.out.println(model.id + " " + model.lib + " " + model.estimatedVramBytes);
      System.out.println(model.url + " " + model.packs);
      System.out.println(ModelFolder.find(context, model));
    }
  }
}
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        shutil.which("javac") is None, reason="needs javac: apt-get install default-jdk-headless"
    ),
]


class App:
    """An installed app with a package's module in it."""

    def __init__(self, root: Path, package: Package) -> None:
        self.package = root / "package"
        package.write(self.package)
        self.classes, self.storage = root / "classes", root / "storage"
        (self.storage / "files").mkdir(parents=True)
        shutil.copytree(self.package / MODULE / "assets", self.storage / "assets")
        main = root / "Main.java"
        main.write_text(MAIN)
        sources = [*STUBS.rglob("*.java"), *(self.package / MODULE / "java").rglob("*.java"), main]
        subprocess.run(
            [
                "javac",
                "--release",
                "11",
                "-Xlint:all,-options,-serial",
                "-Werror",
                "-d",
                str(self.classes),
            ]
            + [str(path) for path in sources],
            check=True,
        )

    def run(self) -> list[str]:
        done = subprocess.run(
            ["java", "-cp", str(self.classes), "Main", str(self.storage)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            return [done.stderr.splitlines()[0]]
        return done.stdout.splitlines()


def make(tmp_path: Path, delivery: str | None, url: str | None = None) -> App:
    artifact = phone_artifact(tmp_path / "artifact", shards=[b"a" * 4000, b"b" * 4000])
    urls = {} if url is None else {"toy-q4f16_1": url}
    return App(tmp_path, plan_package([artifact], urls=urls, bundle=False, delivery=delivery))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name[0] != "."}


def test_files_that_were_pushed(tmp_path: Path) -> None:
    app = make(tmp_path, None, "HF://me/toy")
    assert app.run() == [
        "toy-q4f16_1 toy_q4f16_1 123456789",
        "https://huggingface.co/me/toy []",
        "null",
    ]
    folder = app.storage / "external/toy-q4f16_1"
    shutil.copytree(tmp_path / "artifact/model", folder)
    assert app.run()[2] == str(folder)
    (folder / "params_shard_1.bin").write_bytes(b"short")
    assert app.run()[2] == "null"


def test_packs_that_play_downloads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("edgec.packaging.android._PACK_BYTES", 10_000)
    app = make(tmp_path, "on-demand")
    modules = sorted((app.package / "android").glob("*_weights_*"))
    assert len(modules) == 2
    packs = [app.storage / "packs" / module.name for module in modules]
    assert app.run()[1:] == [f" [{packs[0].name}, {packs[1].name}]", "null"]
    shutil.copytree(modules[0] / "src/main", packs[0])
    assert app.run()[2] == "null"
    shutil.copytree(modules[1] / "src/main", packs[1])
    folder = app.storage / "files/edgec-models/toy-q4f16_1"
    for _ in range(2):  # every start of the app finds it
        assert app.run()[2] == str(folder)
        assert contents(folder) == contents(tmp_path / "artifact/model")
        assert all(path.is_symlink() for path in folder.iterdir())
        assert [path.name for path in folder.parent.iterdir()] == [folder.name]
    # Play moves a pack with an update; the links follow.
    (packs[1] / "assets").rename(packs[1] / "old")
    shutil.copytree(modules[1] / "src/main/assets", packs[1] / "assets")
    shutil.rmtree(packs[1] / "old")
    assert app.run()[2] == str(folder)
    # A pack of another version doesn't reach the engine.
    (packs[1] / "assets/toy-q4f16_1/params_shard_1.bin").write_bytes(b"short")
    (error,) = app.run()
    assert "are of another version of the app" in error


def test_packs_that_come_with_the_app(tmp_path: Path) -> None:
    app = make(tmp_path, "install-time")
    (module,) = (app.package / "android").glob("*_weights_*")
    shutil.copytree(module / "src/main/assets", app.storage / "assets", dirs_exist_ok=True)
    folder = app.storage / "files/edgec-models/toy-q4f16_1"
    assert app.run()[2] == str(folder)
    assert contents(folder) == contents(tmp_path / "artifact/model")
    # What was copied isn't copied again, unless it is damaged or the list names another digest.
    shard = folder / "params_shard_0.bin"
    shard.write_bytes(b"z" * 4000)
    app.run()
    assert shard.read_bytes() == b"z" * 4000
    shard.write_bytes(b"z")
    app.run()
    assert shard.read_bytes() == b"a" * 4000
    listing = app.storage / "assets/edgec-models.json"
    old = [path.name for path in folder.iterdir() if path.name.startswith(".params_shard_0")]
    digest = old[0].rsplit(".", 1)[1]
    listing.write_text(listing.read_text().replace(digest, "0" * 64))
    (app.storage / "assets/toy-q4f16_1/params_shard_0.bin").write_bytes(b"n" * 4000)
    app.run()
    assert shard.read_bytes() == b"n" * 4000
    marks = [path.name for path in folder.iterdir() if path.name.startswith(".params_shard_0")]
    assert marks == [f".params_shard_0.bin.{'0' * 64}"]
