"""The peers' Python environments, each with the packages that its requirements pin."""

from __future__ import annotations

import hashlib
import sys
from dataclasses import dataclass
from pathlib import Path

import steps

_HERE = Path(__file__).parent
_REQUIREMENTS = _HERE / "requirements"
TILE_CONFIG = _HERE / "sides" / "tile_config.h"
_ALONE = _HERE / "sides" / "library_alone.cmake"
# The level x86-64-v3: all that has AVX2.
_LEVEL_3 = ("SSE42", "AVX", "AVX2", "FMA", "F16C", "BMI2")


@dataclass(frozen=True)
class Environment:
    """A peer's environment.

    Attributes:
        name: of its folder.
        installs: arguments of ``pip install``, one call after another.
        cmake: options of a peer that is compiled.
    """

    name: str
    installs: tuple[tuple[str, ...], ...]
    cmake: tuple[str, ...] = ()

    def digest(self) -> str:
        """Of all that decides what is installed."""
        # Not of where this file lies.
        texts = [repr(self).replace(str(_HERE), ""), sys.version]
        texts += [TILE_CONFIG.read_text(), _ALONE.read_text()]
        for install in self.installs:
            texts += [Path(word).read_text() for word in install if word.endswith(".txt")]
        return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:12]


def _from(name: str, *options: str) -> tuple[str, ...]:
    return (*options, "-r", str(_REQUIREMENTS / f"{name}.txt"))


# From source, and without a cache of what was built before with other options.
_COMPILED = _from("llama_cpp", "--no-cache-dir", "--no-binary", "llama-cpp-python")
_LIBRARY_ALONE = ("-DLLAVA_BUILD=OFF", f"-DCMAKE_PROJECT_llama.cpp_INCLUDE={_ALONE}")
# PyTorch first and at one version: what follows would bring its build for GPUs.
_TORCH = _from("torch")

ENVIRONMENTS = {
    item.name: item
    for item in (
        Environment(
            "llama.cpp",
            (_COMPILED,),
            (*_LIBRARY_ALONE, "-DGGML_NATIVE=ON", f"-DCMAKE_CXX_FLAGS='-include {TILE_CONFIG}'"),
        ),
        Environment(
            "llama.cpp-avx2",
            (_COMPILED,),
            (*_LIBRARY_ALONE, "-DGGML_NATIVE=OFF", *(f"-DGGML_{name}=ON" for name in _LEVEL_3)),
        ),
        Environment("onnxruntime-genai", (_TORCH, _from("onnxruntime_genai"))),
        Environment(
            "openvino-genai",
            (_TORCH, _from("openvino_genai"), _from("optimum_intel", "--no-deps")),
        ),
    )
}


def python(name: str, cache: Path) -> Path:
    """The interpreter of an environment, which is made if it isn't there.

    Args:
        name: a key of :data:`ENVIRONMENTS`.
        cache: the folder of all environments.

    Raises:
        steps.StepError: pip can't install it.
    """
    environment = ENVIRONMENTS[name]
    folder = cache / f"{name}-{environment.digest()}"
    program = folder / "bin" / "python"
    log = cache / f"{name}.log"

    def install(place: Path) -> None:
        steps.run([sys.executable, "-m", "venv", str(place)], log)
        for words in environment.installs:
            variables = {"CMAKE_ARGS": " ".join(environment.cmake)} if environment.cmake else {}
            steps.run([str(program), "-m", "pip", "install", *words], log, variables)

    # The programs of an environment name its folder: it can't be renamed.
    steps.make(folder, f"installing {name}", install, movable=False)
    return program
