"""Which engines take part, with which model files and settings."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import steps
from checkpoint import CONFIG, write_checkpoint, write_source
from environments import python

from edgec.files import digest_json, pretty_json

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

SIDES = Path(__file__).parent / "sides"
# malloc asks the kernel for pages of 2 MiB.
_HUGE_PAGES = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}
# Converters load whole models: with small pages that takes several times as long. Nothing is
# fetched from the hub.
_CONVERTERS = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1",
    "HF_HUB_OFFLINE": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}
PREFILL_CHUNK = 512
# llama.cpp's name for how keys and values are stored, by ours.
_LLAMA_CPP_CACHES = {"": "f16", "int8": "q8_0"}


@dataclass(frozen=True)
class Models:
    """One model's files for every engine, made when they are asked for.

    Attributes:
        config: of the model.
        folder: of all files of this model.
        environments: of the peers.
        target: what edgec compiles for.
        scheme: how edgec quantizes.
        context: tokens that every engine has room for.
    """

    config: Mapping[str, Any]
    folder: Path
    environments: Path
    target: str
    scheme: str
    context: int

    @cached_property
    def source(self) -> Path:
        """A folder with the config, which names edgec's synthetic checkpoint, and a tokenizer."""

        def write(place: Path) -> None:
            place.mkdir()
            write_source(dict(self.config), place)

        return steps.make(self.folder / "source", "writing config and tokenizer", write)

    def checkpoint(self) -> Path:
        """A model folder with float16 weights, which converters read; see :meth:`tidy`."""

        def write(place: Path) -> None:
            shutil.copytree(self.source, place)
            write_checkpoint(dict(self.config), self.source / CONFIG, place)

        return steps.make(self.folder / "checkpoint", "writing the checkpoint", write)

    def tidy(self) -> None:
        """Remove what only converters read: in float16, models take much more than in 4 bits."""
        steps.remove(self.folder / "checkpoint")

    def edgec(self, kv_cache: str = "") -> Path:
        """edgec's artifact. The build itself knows what is done already.

        Args:
            kv_cache: how keys and values are stored; empty for what edgec does by itself.
        """
        context: dict[str, Any] = {"length": self.context, "prefill_chunk": PREFILL_CHUNK}
        if kv_cache:
            context["kv_cache_dtype"] = kv_cache
        name = "-".join(["cpu-benchmark", *filter(None, [kv_cache])])
        recipe = {
            "schema": "edgec.recipe/v1",
            "name": name,
            "model": {"source": f"synthetic:{self.source / CONFIG}"},
            "context": context,
            "quantization": {"scheme": self.scheme},
            "targets": [self.target],
        }
        file = self.folder / f"{name}.yaml"  # JSON is YAML
        file.write_text(pretty_json(recipe))
        command = [sys.executable, "-m", "edgec", "build", str(file), "--no-verify", "--json"]
        out = self.folder / "edgec"
        print(f"building edgec's artifact for {self.target} ...", file=sys.stderr, flush=True)
        done = subprocess.run(
            [*steps.LOW_PRIORITY, *command, "--out", str(out)],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise steps.StepError(steps.reason(done.stderr, done.returncode))
        return Path(json.loads(done.stdout.splitlines()[-1])["artifact"])

    def gguf(self, kind: str, environment: str) -> Path:
        """A GGUF file with the codes that llama.cpp's own quantizer finds.

        Where all matrices have the same type it is written at once; else llama.cpp's quantizer,
        which chooses their types, reads a file in float16, which isn't kept.

        Args:
            kind: ``"Q4_0-pure"``, ``"Q4_0"`` or ``"Q4_K_M"``.
            environment: whose packages and quantizer.
        """
        program = str(python(environment, self.environments))
        log = self.folder / "gguf.log"

        def write(place: Path, kind: str) -> None:
            script, checkpoint = str(SIDES / "write_gguf.py"), str(self.checkpoint())
            steps.run([program, script, checkpoint, str(place), kind], log)

        def quantize(place: Path) -> None:
            if kind == "Q4_0-pure":
                write(place, "Q4_0")
                return
            whole = place.with_suffix(".F16")
            write(whole, "F16")
            script = str(SIDES / "quantize_gguf.py")
            try:
                steps.run([program, script, str(whole), str(place), kind], log)
            finally:
                steps.remove(whole)

        return steps.make(self.folder / f"{kind}.gguf", f"quantizing to {kind}", quantize)

    def onnx(self) -> Path:
        """What the builder of ONNX Runtime GenAI makes; takes 10 GB for 1.2 B parameters."""
        program = str(python("onnxruntime-genai", self.environments))

        def build(place: Path) -> None:
            checkpoint = self.checkpoint()
            command = [program, "-m", "onnxruntime_genai.models.builder", "-e", "cpu", "-p", "int4"]
            command += ["-i", str(checkpoint), "-o", str(place)]
            command += ["-c", str(place.with_name("onnx.cache")), "--extra_options"]
            command += ["accuracy_level=4", "block_size=32", "hf_token=false"]
            # Of a prompt, the others compute only the last token's logits too.
            command += ["prune_lm_head=true"]
            command += [f"shared_embeddings={str(self.tied).lower()}"]
            steps.run(command, self.folder / "onnx.log", _CONVERTERS)

        return steps.make(self.folder / "onnx", "building for ONNX Runtime GenAI", build)

    def openvino(self, *, all_layers: bool) -> Path:
        """What optimum-cli makes: symmetric int4 in groups of 64.

        Args:
            all_layers: embedding and head too; else they are int8.
        """
        program = python("openvino-genai", self.environments)

        def export(place: Path) -> None:
            checkpoint = self.checkpoint()
            command = [str(program.with_name("optimum-cli")), "export", "openvino"]
            command += ["--model", str(checkpoint), "--task", "text-generation-with-past"]
            command += ["--weight-format", "int4", "--sym", "--group-size", "64", "--ratio", "1.0"]
            command += ["--all-layers"] * all_layers
            steps.run([*command, str(place)], self.folder / "openvino.log", _CONVERTERS)

        name = "openvino-all" if all_layers else "openvino"
        return steps.make(self.folder / name, f"exporting {name}", export)

    @property
    def tied(self) -> bool:
        """Whether the embedding is the head too."""
        return bool(self.config.get("tie_word_embeddings"))


@dataclass(frozen=True)
class Entry:
    """An engine with its settings: a row of the tables.

    Attributes:
        name: of the row.
        side: the script that serves it.
        model: makes its model's file or folder.
        form: how that stores the weights, in words.
        environment: its Python environment; None for this program's own.
        request: what opening it takes beside the model.
        variables: of its process.
        cache: how it stores keys and values; empty for what it does by itself.
    """

    name: str
    side: str
    model: Callable[[Models], Path]
    form: str = ""
    environment: str | None = None
    request: Mapping[str, Any] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)
    cache: str = ""

    def command(self, environments: Path) -> list[str]:
        """What starts its process.

        Raises:
            steps.StepError: its environment can't be made.
        """
        program = Path(sys.executable)
        if self.environment is not None:
            program = python(self.environment, environments)
        return [str(program), str(SIDES / self.side)]


def entries(*, avx512: bool = True, kv_cache: str = "") -> list[Entry]:
    """All engines, edgec first.

    Args:
        avx512: else those only that can be built for x86-64-v3.
        kv_cache: ``"int8"`` for rows with keys and values in 8 bits too.
    """
    found = [Entry("edgec", "edgec_side.py", Models.edgec)]
    environment = "llama.cpp" if avx512 else "llama.cpp-avx2"
    for kind in ("Q4_0-pure", "Q4_0", "Q4_K_M"):
        found += _llama_cpp(kind, environment)
    if kv_cache:
        found.insert(
            1,
            Entry(
                f"edgec, {kv_cache} KV",
                "edgec_side.py",
                lambda models: models.edgec(kv_cache),
                cache=kv_cache,
            ),
        )
        found += _llama_cpp("Q4_0-pure", environment, kv_cache)
    if avx512:
        found += _both(
            Entry(
                "ONNX Runtime GenAI",
                "onnxruntime_genai_side.py",
                Models.onnx,
                "int4 in blocks of 32, accuracy level 4",
                "onnxruntime-genai",
            )
        )
        found += _openvino("OpenVINO GenAI", all_layers=False)
        found += _openvino("OpenVINO GenAI, int4 head", all_layers=True)
    return found


def _openvino(name: str, *, all_layers: bool) -> list[Entry]:
    return _both(
        Entry(
            name,
            "openvino_genai_side.py",
            lambda models: models.openvino(all_layers=all_layers),
            f"symmetric int4 in groups of 64, head in {'int4' if all_layers else 'int8'}",
            "openvino-genai",
        )
    )


def _llama_cpp(kind: str, environment: str, kv_cache: str = "") -> list[Entry]:
    return _both(
        Entry(
            f"llama.cpp {kind}" + (f", {kv_cache} KV" if kv_cache else ""),
            "llama_cpp_side.py",
            lambda models: models.gguf(kind, environment),
            kind,
            environment,
            {"flash_attention": True, "mmap": True, "cache": _LLAMA_CPP_CACHES[kv_cache]},
            cache=kv_cache,
        )
    )


def _both(entry: Entry) -> list[Entry]:
    """An engine as its users run it, and with huge pages."""
    # A mapped file has small pages.
    unmapped = {"mmap": False} if "mmap" in entry.request else {}
    huge = replace(
        entry,
        name=f"{entry.name}, huge pages",
        request={**entry.request, **unmapped},
        variables=_HUGE_PAGES,
    )
    return [entry, huge]


def model_digest(config: Mapping[str, Any]) -> str:
    """Tells models apart whose files lie in one cache."""
    return digest_json(dict(config))[:12]
