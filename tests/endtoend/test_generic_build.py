"""A generic model on the command line: killed, built, built again, run and verified."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import numpy as np
import pytest
from command import edgec

from caches import cache_in
from edgec.artifacts.artifact import open_artifact
from edgec.cachefolder import cache_root
from edgec.pipeline.store import Store
from generic_models import write_recipe

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow


def test_a_model_from_the_recipe_to_an_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEC_CACHE", str(cache_in(tmp_path)))
    recipe = write_recipe(tmp_path, "vit", targets=["host"], quality={"max_error": 0.9})
    killed = subprocess.Popen(
        [sys.executable, "-m", "edgec", "build", recipe.name],
        cwd=tmp_path,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    with pytest.raises(subprocess.TimeoutExpired):
        killed.wait(2.5)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    for entry in Store(cache_root()).entries():
        assert not entry.problems(), entry

    place = (
        tmp_path
        / edgec(tmp_path, "build", recipe.name, "-s", "quantization.scheme=q4f32_1").strip()
    )
    artifact = open_artifact(place)
    artifact.check_files()
    # Activations are rounded to 8 bits: half a percent of each product.
    assert artifact.report["outputs"]["last_hidden_state"]["compiler"] <= 2e-2
    assert artifact.interface is not None
    assert not (place / "model" / "mlc-chat-config.json").exists()

    again = edgec(
        tmp_path, "build", recipe.name, "-s", "quantization.scheme=q4f32_1", "--json"
    ).splitlines()
    assert json.loads(again[-1])["up_to_date"]

    image = np.random.default_rng(0).uniform(-1, 1, (2, 3, 16, 16)).astype(np.float32)
    np.save(tmp_path / "image.npy", image)
    edgec(
        tmp_path, "run", str(place), "--input", "pixel_values=image.npy", "--output", "states.npy"
    )
    states = np.load(tmp_path / "states.npy")
    assert states.shape == (2, 5, 64)
    assert np.isfinite(states).all()

    verified = json.loads(edgec(tmp_path, "verify", str(place), "--json"))
    assert verified["golden"]["artifact"] == {"last_hidden_state": 0.0}

    planned = json.loads(
        edgec(tmp_path, "plan", recipe.name, "-s", "quantization.scheme=q4f32_1", "--json")
    )
    assert {group["storage"] for group in planned["builds"][0]["weights"]} == {
        "float32",
        "4 bits in groups of 32",
    }
