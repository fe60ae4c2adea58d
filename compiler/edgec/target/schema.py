"""What a target profile says: the file's fields, and the profile with everything it inherits.

The descriptions and examples are what editors show; ``docs/schemas/target.schema.json`` is made
from ``Profile``.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, field_validator

from edgec.validation.types import Matches, Section, Unique, refused

SCHEMA = "edgec.target/v1"
HOST = "host"

ModuleName = Annotated[
    str,
    Field(max_length=100),
    Matches(r"[a-z][a-z0-9_]*", "a module name: lower-case letters, digits and '_'"),
]
TargetName = Annotated[
    str,
    Field(max_length=100),
    Matches(
        r"[a-z0-9][a-z0-9._-]*",
        "lower-case letters, digits, '.', '_' and '-', starting with a letter or digit",
    ),
]
CpuFeature = Annotated[
    str,
    Field(max_length=40),
    Matches(
        r"[a-z0-9][a-z0-9_]*",
        "a flag as /proc/cpuinfo spells it: lower-case letters, digits and '_'",
    ),
]
CpuFeatures = Annotated[tuple[CpuFeature, ...], Field(max_length=200), Unique()]
LimitName = Annotated[
    str, Matches(r"[a-z][a-z0-9_]*", "a name of lower-case letters, digits and '_'")
]
Limits = dict[LimitName, Annotated[int, Field(ge=0)]]
VectorBits = Annotated[int, Field(ge=64, le=2048, multiple_of=64)]

_ATTRIBUTE = r"[+-][a-z0-9][a-z0-9._-]*"
_TVM_EXAMPLE = {"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "x86-64-v3"}
_TVM_FIELDS: dict[str, Any] = {
    "properties": {
        "kind": {
            "type": ["string", "null"],
            "description": "TVM's code generator.",
            "examples": ["llvm", "cuda", "opencl", "vulkan", "metal", "webgpu"],
        },
        "mtriple": {
            "type": ["string", "null"],
            "description": "LLVM's target triple: architecture, system and ABI.",
            "examples": ["x86_64-linux-gnu", "aarch64-linux-gnu"],
        },
        "mcpu": {
            "type": ["string", "null"],
            "description": "LLVM's name of the CPU. Code may use every feature that it implies.",
            "examples": ["x86-64-v3", "cortex-a76"],
        },
        "mattr": {
            "type": ["array", "null"],
            "items": {"type": "string", "pattern": f"^(?:{_ATTRIBUTE})$"},
            "description": "LLVM features added (+) to those of mcpu or taken away (-).",
            "examples": [["+avx512vnni"]],
        },
        "host": {
            "type": ["object", "null"],
            "description": "The device's CPU, which launches the kernels of a GPU target.",
            "examples": [{"kind": "llvm", "mtriple": "aarch64-linux-android24"}],
        },
    }
}


FloatType = Literal["float16", "float32"]
Form = Literal["shared", "system", "wasm"]
CudaArchitecture = Annotated[
    str, Matches(r"sm_[1-9][0-9]{1,2}[af]?", "an architecture as NVIDIA names it: sm_87")
]


class Library(Section):
    """In which forms the library is made, and how it is linked."""

    forms: Annotated[tuple[Form, ...], Field(min_length=1), Unique()] = Field(
        ("shared",),
        description=(
            "shared: a library that is loaded by its path. system: objects with a symbol prefix, "
            "for linking into an app, as a .tar and a static archive. wasm: a WebAssembly module "
            "that holds the runtime too, for browsers."
        ),
        examples=[["shared", "system"]],
    )
    page_bytes: int = Field(
        4096,
        ge=4096,
        le=1 << 21,
        description="Alignment of the shared library's segments: the largest page of the devices.",
        examples=[16384],
    )
    cuda_architectures: Annotated[tuple[CudaArchitecture, ...], Unique()] = Field(
        (),
        description="GPUs to make machine code for; the kernels are chosen for tvm.arch.",
        examples=[["sm_80", "sm_89"]],
    )
    cuda_toolkit: Annotated[str, Matches(r"[1-9][0-9]", "a major version in quotes")] | None = (
        Field(
            None,
            description="Major version of the CUDA toolkit that the devices' drivers understand.",
            examples=["12"],
        )
    )

    @field_validator("page_bytes")
    @classmethod
    def _page_is_a_power_of_two(cls, page_bytes: int) -> int:
        if page_bytes & (page_bytes - 1):
            raise refused(f"{page_bytes} is not a power of two", "write 4096, 16384 or 65536")
        return page_bytes


class Profile(Section):
    """One device class. What a profile leaves out comes from the one that it extends."""

    schema_version: Literal["edgec.target/v1"] = Field(
        alias="schema", description="Version of this file's format.", examples=[SCHEMA]
    )
    name: TargetName = Field(
        description="Name of the target: the file's name without .yaml.", examples=["x86-64-v3"]
    )
    extends: TargetName | None = Field(
        None,
        description=(
            "The profile to start from. Fields given here replace its fields; mappings are merged "
            "key by key, a key set to null is taken away, and cpu_features are added to its own."
        ),
        examples=["x86-64"],
    )
    abstract: bool = Field(
        default=False,
        description="Whether the profile only serves to be extended. Not inherited.",
        examples=[True],
    )
    description: str = Field(
        "", max_length=2000, description="Which devices this is for.", examples=["CPUs with AVX2"]
    )
    platform: ModuleName | None = Field(
        None,
        description="How the library is made and packaged: a module of edgec.emitters.",
        examples=["cpu"],
    )
    tvm: dict[str, JsonValue] = Field(
        default_factory=dict,
        description="The target as TVM takes it. The keys are TVM's.",
        examples=[_TVM_EXAMPLE],
        json_schema_extra=_TVM_FIELDS,
    )
    vector_bits: VectorBits | None = Field(
        None,
        description="Widest vector registers that our kernels use, in bits.",
        examples=[256, 512],
    )
    cpu_features: CpuFeatures = Field(
        (),
        description=(
            "CPU flags, as in /proc/cpuinfo, without which the library doesn't run. They are "
            "added to those of the extended profile."
        ),
        examples=[["avx2", "fma", "f16c"]],
    )
    layout: ModuleName | None = Field(
        None,
        description=(
            "How quantized weights are packed: a module of edgec.layouts. mlc: 32-bit words row by "
            "row, as the MLC engines have them. dot4: tiles of 16 rows for integer dot products."
        ),
        examples=["mlc", "dot4"],
    )
    activations: FloatType | None = Field(
        None,
        description=(
            "Type of the activations that the devices can compute with: the recipe's quantization "
            "scheme is taken in its variant with it. By default the scheme decides."
        ),
        examples=["float32"],
    )
    standin: ModuleName | None = Field(
        None,
        description=(
            "What runs the library when it is verified: native for this machine, or a module of "
            "edgec.standins that stands in for the device."
        ),
        examples=["native", "qemu", "emulator"],
    )
    standin_cpu: Annotated[str, Field(max_length=60)] | None = Field(
        None,
        description=(
            "The processor that an emulated CPU shall be, in the spelling of qemu-aarch64 -cpu "
            "help: one with the features that the library may use and no others."
        ),
        examples=["cortex-a76"],
    )
    library: Library | None = Field(
        None,
        description="Which files the library is, and how they are linked.",
        examples=[{"forms": ["shared", "system"], "page_bytes": 16384}],
    )
    limits: Limits = Field(
        default_factory=dict,
        description=(
            "Limits of the device, beyond which a kernel or a buffer fails the build: max_threads "
            "and max_shared_memory_bytes of a work-group, max_buffers and max_argument_bytes of a "
            "kernel, max_allocation_bytes of one buffer. What isn't given isn't checked."
        ),
        examples=[{"max_threads": 1024, "max_shared_memory_bytes": 49152}],
    )

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, name: str) -> str:
        if name == HOST:
            raise refused(f"{HOST!r} always means this machine", "choose another name")
        return name

    @field_validator("tvm")
    @classmethod
    def _tvm_is_plain(cls, tvm: dict[str, JsonValue]) -> dict[str, JsonValue]:
        _check_tvm(tvm, ())
        host = tvm.get("host")
        if host is not None:
            if not isinstance(host, dict):
                raise refused("a mapping is needed here", "write kind, mtriple, mcpu", at=("host",))
            _check_tvm(host, ("host",))
        return tvm


def _check_tvm(tvm: dict[str, JsonValue], at: tuple[str, ...]) -> None:
    for key in ("kind", "mtriple", "mcpu"):
        if key in tvm and not (isinstance(tvm[key], str) and tvm[key]):
            raise refused("text is needed here", "put it in quotes", at=(*at, key))
    attributes = tvm.get("mattr", [])
    if not isinstance(attributes, list):
        raise refused("a list is needed here", "write [+avx512vnni]", at=(*at, "mattr"))
    for index, attribute in enumerate(attributes):
        if not (isinstance(attribute, str) and re.fullmatch(_ATTRIBUTE, attribute)):
            raise refused(
                f"{str(attribute)[:40]!r} neither adds nor takes away an LLVM feature",
                "write + or - and the feature's name, for example +avx512vnni",
                at=(*at, "mattr", index),
            )


class Target(Section):
    """A profile with everything that it inherits: what the pipeline builds for.

    Attributes:
        name: the profile's name; also when it was asked for as ``host``.
        lineage: the profiles it was made of, from the base to itself.
        abstract: whether it only serves to be extended.
        description: which devices it is for.
        platform: module of ``edgec.emitters``.
        tvm: target mapping for ``tvm.target.Target``.
        vector_bits: widest vector registers that our kernels use; None on devices without.
        cpu_features: flags of ``/proc/cpuinfo`` that the library needs, sorted.
        layout: module of ``edgec.layouts``.
        standin: how ``verify`` runs the library.
        activations: the only type that activations may have; None where the recipe's scheme says.
        standin_cpu: the processor that an emulated CPU shall be.
        library: which files the library is.
        limits: known numeric limits of the device.
    """

    name: str
    lineage: tuple[str, ...]
    abstract: bool
    description: str
    platform: str
    tvm: dict[str, JsonValue]
    vector_bits: int | None
    cpu_features: tuple[str, ...]
    layout: str
    standin: str
    standin_cpu: str | None = None
    activations: FloatType | None = None
    library: Library = Library()
    limits: dict[str, int]

    @property
    def triple(self) -> str:
        """LLVM's triple of the CPU that runs the library's host code."""
        host = self.tvm.get("host")
        tvm = host if isinstance(host, dict) else self.tvm
        return str(tvm.get("mtriple", ""))

    @property
    def architecture(self) -> str:
        """The CPU's architecture as in LLVM's triples, with one name for each: ``"aarch64"``."""
        name = self.triple.partition("-")[0]
        return {"arm64": "aarch64"}.get(name, name)
