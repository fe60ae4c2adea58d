"""What is said of a model before any weight is read."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from artifact_fakes import make_artifact
from cli_calls import call
from library_builders import BLOB, elf, macho

from edgec.artifacts.artifact import Artifact
from edgec.checkpoints import ModelSource
from edgec.cli.model_lines import model_lines
from edgec.errors import CheckpointError, UsageError, VerificationError
from edgec.inspection import model
from edgec.inspection.facts import config_facts
from edgec.inspection.find import find_thing
from edgec.inspection.model import inspect_model
from edgec.inspection.sizes import parameter_count, scheme_sizes
from edgec.inspection.weights import look_at_weights
from edgec.libraries.ar import build_archive
from edgec.libraries.members import Member
from edgec.libraries.open import BLOB_SYMBOL
from edgec.models.kv_cache import KVCacheSpec
from edgec.models.parameters import Parameter, Source
from edgec.models.rope import Rope

if TYPE_CHECKING:
    from pathlib import Path

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 100,
    "max_position_embeddings": 128,
    "rope_theta": 10000.0,
}
PARAMETERS = [
    Parameter("embed.weight", (100, 64), "embedding", (Source("embed.weight", (100, 64)),)),
    Parameter(
        "qkv.weight",
        (128, 64),
        "linear",
        (Source("q.weight", (64, 64)), Source("kv.weight", (64, 64))),
    ),
    Parameter("norm.weight", (64,), "norm", (Source("norm.weight", (64,)),)),
]


def write_model(folder: Path, tensors: dict[str, tuple[str, tuple[int, ...]]]) -> Path:
    """A model folder whose weights are a header and nothing behind it that is ever read."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    header: dict[str, Any] = {}
    offset = 0
    for name, (dtype, shape) in tensors.items():
        size = {"F16": 2, "F32": 4, "I32": 4}[dtype]
        for axis in shape:
            size *= axis
        header[name] = {
            "dtype": dtype,
            "shape": list(shape),
            "data_offsets": [offset, offset + size],
        }
        offset += size
    raw = json.dumps(header).encode()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        file.truncate(8 + len(raw) + offset)
    return folder


WHOLE = {
    "embed.weight": ("F16", (100, 64)),
    "q.weight": ("F16", (64, 64)),
    "kv.weight": ("F16", (64, 64)),
    "norm.weight": ("F32", (64,)),
}


@pytest.fixture
def without_tvm(monkeypatch: pytest.MonkeyPatch) -> None:
    """A family that knows ``PARAMETERS`` whatever the config says."""
    rope = Rope(10000.0, 16)
    caches = {
        dtype: KVCacheSpec(layers=2, heads=4, kv_heads=1, head_dim=16, rope=rope, dtype=dtype)
        for dtype in ("float16", "float32")
    }

    class Family:
        IGNORED_TENSORS = ("*.inv_freq",)

    monkeypatch.setattr(model, "_build", lambda _config: (PARAMETERS, caches))
    monkeypatch.setattr(model, "load_family", lambda _config: Family)


def library() -> bytes:
    """A library for Arm with one kernel."""
    symbols = {"__tvm_ffi_add": b"code", "__tvm_ffi_take": b"code", BLOB_SYMBOL: BLOB.to_bytes()}
    return elf(symbols, ["TVMFFIErrorSetRaisedFromCStrParts"], shared=True, needed=["libc.so"])


def folder_source(folder: Path) -> ModelSource:
    return ModelSource("folder", str(folder), CONFIG, folder / "config.json", folder)


# What the config says


def test_facts_fill_in_what_follows_from_others() -> None:
    facts = config_facts(CONFIG)
    assert (facts["kv_heads"], facts["head_dim"]) == (4, 16)
    assert facts["intermediate_size"] is None
    assert facts["rope_theta"] == 10000.0


def test_facts_of_both_forms_of_rope_and_of_quantized_models() -> None:
    old = config_facts({"rope_theta": 5.0, "rope_scaling": {"type": "linear"}})
    new = config_facts({"rope_parameters": {"rope_theta": 5.0, "rope_type": "linear"}})
    assert (old["rope_theta"], old["rope_type"]) == (5.0, "linear")
    assert (new["rope_theta"], new["rope_type"]) == (5.0, "linear")
    assert config_facts({"quantization_config": {"quant_method": "gptq"}})["quantization"] == "gptq"


@pytest.mark.parametrize("value", ["x", [1], {"a": 1}, None, True, -3, 1.5])
def test_nonsense_in_a_config_does_no_harm(value: Any, tmp_path: Path) -> None:
    config = {"model_type": "other", **{key: value for key in CONFIG if key != "model_type"}}
    config |= {"rope_scaling": value, "rope_parameters": value, "quantization_config": value}
    report = inspect_model(ModelSource("folder", "m", config, tmp_path / "config.json", tmp_path))
    assert report.unsupported is not None
    assert model_lines(report)


# Sizes


def test_sizes_in_every_scheme() -> None:
    sizes = {
        size.scheme: size
        for size in scheme_sizes(PARAMETERS, lambda dtype: 2 if dtype == "float16" else 4)
    }
    count = 100 * 64 + 128 * 64 + 64
    assert parameter_count(PARAMETERS) == count
    assert sizes["q0f32"].weights_bytes == 4 * count
    assert sizes["q0f32"].bits_per_weight == 32
    quantized = 100 * 64 + 128 * 64
    assert sizes["q4f16_1"].weights_bytes == quantized // 2 + quantized // 32 * 2 + 64 * 2
    assert (sizes["q4f16_1"].kv_bytes_per_token, sizes["q4f32_1"].kv_bytes_per_token) == (2, 4)


def test_a_scheme_that_does_not_fit_says_why() -> None:
    odd = [Parameter("w", (8, 40), "linear", (Source("w", (8, 40)),))]
    sizes = {size.scheme: size for size in scheme_sizes(odd, lambda _dtype: 1)}
    assert sizes["q0f16"].weights_bytes == 8 * 40 * 2
    assert sizes["q4f16_1"].weights_bytes is None
    assert "K = 40" in sizes["q4f16_1"].problem


# Weights


def test_headers_that_fit(tmp_path: Path) -> None:
    source = folder_source(write_model(tmp_path / "m", {**WHOLE, "a.inv_freq": ("F32", (8,))}))
    found = look_at_weights(source, PARAMETERS, ("*.inv_freq",))
    assert found.problem is None
    assert (found.checked, found.tensors, found.files) == ("headers", 5, 1)
    assert found.dtypes == {"F16": 3, "F32": 2}
    assert found.nbytes == 2 * (6400 + 2 * 4096) + 4 * (64 + 8)


def test_headers_that_do_not_fit(tmp_path: Path) -> None:
    tensors = {**WHOLE, "q.weight": ("F16", (64, 32)), "norm.weight": ("I32", (64,))}
    found = look_at_weights(folder_source(write_model(tmp_path / "m", tensors)), PARAMETERS, ())
    assert found.tensors == 4
    assert found.problem is not None
    assert "q.weight" in str(found.problem)
    assert "norm.weight" in str(found.problem)


def test_a_folder_without_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    found = look_at_weights(folder_source(tmp_path), PARAMETERS, ())
    assert found.checked == "nothing"
    assert "has no weights" in str(found.problem)


@pytest.mark.parametrize(
    ("names", "problem"),
    [
        (["embed.weight", "q.weight", "kv.weight", "norm.weight", "x.inv_freq"], None),
        (["embed.weight", "q.weight", "norm.weight"], "kv.weight is missing"),
        (["embed.weight", "q.weight", "kv.weight", "norm.weight", "z"], "z is used by nothing"),
    ],
)
def test_a_hub_model_is_judged_by_its_index(
    tmp_path: Path, names: list[str], problem: str | None
) -> None:
    shards = {name: f"model-{index % 2}.safetensors" for index, name in enumerate(names)}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    source = replace(folder_source(tmp_path), kind="hub")
    found = look_at_weights(source, PARAMETERS, ("*.inv_freq",))
    assert (found.checked, found.tensors, found.files) == ("index", len(names), 2)
    if problem is None:
        assert found.problem is None
    else:
        assert problem in str(found.problem)


def test_a_hub_model_in_one_file_is_not_looked_at(tmp_path: Path) -> None:
    found = look_at_weights(replace(folder_source(tmp_path), kind="hub"), PARAMETERS, ())
    assert (found.checked, found.problem) == ("nothing", None)


# What is meant


def test_things_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "m", WHOLE)
    make_artifact(tmp_path / "a")
    root = tmp_path / "out"
    kinds = {
        text: getattr(find_thing(text, root), "kind", "artifact")
        for text in ("m", "./m", "m/config.json", "a", "a/manifest.json", str(tmp_path / "m"))
    }
    assert kinds == {
        "m": "folder",
        "./m": "folder",
        "m/config.json": "synthetic",
        "a": "artifact",
        "a/manifest.json": "artifact",
        str(tmp_path / "m"): "folder",
    }


def test_a_recipe_that_was_built_is_an_artifact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make_artifact(tmp_path / "out/tinypy/any")
    assert isinstance(find_thing("tinypy", tmp_path / "out"), Artifact)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("org/name", "no such file or folder; .*write hf:org/name"),
        ("a/b/c", "no such file or folder; .*an artifact$"),
        ("nothing", "neither an artifact nor a recipe"),
        ("empty", r"neither a model \(there is no config.json\) nor an artifact"),
    ],
)
def test_what_is_nothing_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match=message):
        find_thing(text, tmp_path / "out")


# The report


@pytest.mark.usefixtures("without_tvm")
def test_a_report_on_a_supported_model(tmp_path: Path) -> None:
    report = inspect_model(folder_source(write_model(tmp_path / "m", WHOLE)))
    assert (report.family, report.problem) == ("llama", None)
    assert report.facts["kv_heads"] == 1
    assert report.facts["tied_embeddings"] is True
    assert {size.scheme: size.kv_bytes_per_token for size in report.sizes}["q4f32_1"] == 256
    lines = dict(model_lines(report))
    assert lines["supported"] == "yes, family llama"
    assert lines["attention"] == "4 heads, 1 key-value heads, 16 wide"
    assert lines["weights"] == "4 tensors in 1 file, 28.8 KiB, 3 F16, 1 F32: they fit the model"
    assert lines["KV cache"] == "of a token 256 B in float32, 128 B in float16, 80 B in int8"
    assert report.to_json()["kv_bytes_per_token"] == {"float32": 256, "float16": 128, "int8": 80}


@pytest.mark.usefixtures("without_tvm")
def test_the_command_answers_in_json_and_in_text(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", WHOLE)
    done = call("inspect", str(folder), "--json")
    assert done.code == 0
    assert done.data["schema"] == "edgec.inspect/v1"
    assert done.data["supported"] is True
    assert done.data["weights"]["problem"] is None
    assert len(done.data["sizes"]) == 6
    text = call("inspect", str(folder))
    assert text.code == 0
    assert "q4f16_1" in text.out


@pytest.mark.usefixtures("without_tvm")
def test_weights_that_do_not_fit_end_with_an_error_code(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "m", {"embed.weight": ("F16", (100, 64))})
    done = call("inspect", str(folder), "--json")
    assert done.code == CheckpointError.exit_code
    assert done.data["supported"] is True
    assert "missing" in done.data["weights"]["problem"]["what"]
    assert "q.weight [64, 64] is missing" in call("inspect", str(folder)).out


@pytest.mark.parametrize("extra", [[], ["--json"]])
def test_an_unsupported_model_is_an_answer_with_exit_code_3(
    tmp_path: Path, extra: list[str]
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**CONFIG, "model_type": "mamba"}))
    done = call("inspect", str(tmp_path / "config.json"), *extra)
    assert done.code == 3
    if extra:
        assert done.data["supported"] is False
        assert "mamba" in done.data["unsupported"]["what"]
        assert done.data["facts"]["layers"] == 2
    else:
        assert "no: " in done.out
        assert "mamba" in done.out
    assert "error" not in done.err


def test_an_artifact_is_shown(tmp_path: Path) -> None:
    artifact = make_artifact(tmp_path / "a")
    done = call("inspect", str(artifact.folder))
    assert done.code == 0
    assert "x86-64-v3" in done.out
    assert "5: 3 default, 2 hand-written" in done.out
    assert "lib/model.so" in done.out
    data = call("inspect", str(artifact.folder), "--json").data
    assert (data["kind"], data["manifest"]["name"]) == ("artifact", "toy")
    assert data["report"] == {"schema": "edgec.report/v1"}
    # What is in lib/ is no library, and that is said.
    assert data["library"]["facts"] is None
    assert data["library"]["problem"]["where"].endswith("lib/model.so")
    assert "library     lib/model.so: " in done.out


def test_the_library_of_an_artifact_is_shown_against_its_limits(tmp_path: Path) -> None:
    needs = {
        "toy_norm": {"argument_bytes": 48, "buffers": 5, "shared_memory_bytes": 256, "threads": 64},
        "toy_gemm": {
            "argument_bytes": 9,
            "buffers": 4,
            "shared_memory_bytes": 16384,
            "threads": 256,
        },
        "toy_odd": {"argument_bytes": 8, "buffers": 1, "shared_memory_bytes": 0, "threads": None},
    }
    artifact = make_artifact(
        tmp_path / "a",
        files={"lib/model.so": library()},
        model_lib="toy",
        kernels__device_kernels=needs,
        limits={"max_threads": 256, "max_shared_memory_bytes": 32768, "max_buffers": 64},
    )
    done = call("inspect", str(artifact.folder))
    assert done.code == 0
    lines = done.out.splitlines()
    for line in (
        "library     lib/model.so: ELF shared library for aarch64, aligned to 16.0 KiB, needs libc.so",
        "symbols     3 exported without a prefix, 1 undefined: TVMFFIErrorSetRaisedFromCStrParts",
        "functions   1 for engines, 2 in host code; 1 called of the runtime",
        "device      1 kernels as OpenCL C",
        (
            "largest     work-group 256 of 256 (gemm), shared memory 16.0 KiB of 32.0 KiB (gemm),"
            " buffers 5 of 64 (norm), arguments 48 B (norm)"
        ),
    ):
        assert line in lines
    data = call("inspect", str(artifact.folder), "--json").data["library"]
    assert data["largest"]["threads"] == {"value": 256, "kernel": "gemm", "limit": 256}
    assert data["facts"]["kernels"] == 1


@pytest.mark.parametrize("name", ["model.so", "no-suffix"])
def test_a_library_alone_is_shown(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(library())
    done = call("inspect", str(path))
    assert done.code == 0
    assert done.out.startswith(f"library     {path}: ELF shared library for aarch64")
    assert "largest" not in done.out
    data = call("inspect", str(path), "--json").data
    assert data["kind"] == "library"
    assert [item["facts"]["prefix"] for item in data["libraries"]] == [""]


def test_every_library_of_an_archive_is_shown(tmp_path: Path) -> None:
    path = tmp_path / "libmodel.a"
    members = [
        Member(f"{prefix}{number}.o", macho(symbols))
        for prefix in ("one_", "two_")
        for number, symbols in enumerate(
            [{f"__tvm_ffi_{prefix}add": b"code"}, {f"{prefix}{BLOB_SYMBOL}": BLOB.to_bytes()}]
        )
    ]
    path.write_bytes(build_archive(members, "darwin"))
    done = call("inspect", str(path))
    assert done.out.count("Mach-O static archive for aarch64, 4 objects") == 2
    assert done.out.count("system      iOS 16.4 or newer") == 2
    assert "with the prefix one_" in done.out
    assert "with the prefix two_" in done.out


def test_a_damaged_library_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "model.so"
    path.write_bytes(library()[:300])
    done = call("inspect", str(path), "--json")
    assert done.code == VerificationError.exit_code
    assert done.data["schema"] == "edgec.error/v1"


def test_a_damaged_manifest_is_an_error(tmp_path: Path) -> None:
    make_artifact(tmp_path / "a")
    (tmp_path / "a/manifest.json").write_text('{"schema": "edgec.manifest/v1"')
    assert call("inspect", str(tmp_path / "a")).code == VerificationError.exit_code
