"""The report on a model: is it supported, what is it, what would it take?"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from edgec.checkpoints.quantized import read_format
from edgec.errors import EdgecError, UnsupportedModelError
from edgec.inspection.facts import config_facts
from edgec.inspection.nearest import Nearest, nearest_family
from edgec.inspection.sizes import SchemeSize, parameter_count, scheme_sizes
from edgec.inspection.weights import Weights, look_at_weights
from edgec.models.find import families, family_name, load_family
from edgec.models.kv_cache import INT8, PAGE_SIZE
from edgec.models.window import longest_context

if TYPE_CHECKING:
    from collections.abc import Mapping

    from edgec.checkpoints import ModelSource
    from edgec.models.kv_cache import KVCacheSpec
    from edgec.models.parameters import Parameter
    from edgec.quantization.schemes import FloatType


@dataclass(frozen=True)
class ModelReport:
    """What is known of a model without its weights.

    Attributes:
        where: how messages call it.
        kind: where it is from: ``"folder"``, ``"hub"`` or ``"config"``.
        commit: of a hub model, what its revision stands for.
        family: the family that builds it; None if no family does.
        unsupported: why it can't be built; None if it can.
        nearest: the family that comes nearest; None if one builds it.
        facts: of its config, see :func:`edgec.inspection.facts.config_facts`; of a supported model
            also ``quantized_form``, how its weights are quantized already.
        parameters: how many weights it has; None if it isn't supported.
        sizes: in every scheme; empty if it isn't supported.
        kv_bytes: of keys and values of one token, by what the KV cache holds them as.
        weights: what headers or index say; None if it isn't supported, or there are none to look
            at.
    """

    where: str
    kind: str
    commit: str | None
    family: str | None
    unsupported: UnsupportedModelError | None
    facts: dict[str, Any]
    parameters: int | None = None
    sizes: tuple[SchemeSize, ...] = ()
    weights: Weights | None = None
    nearest: Nearest | None = None
    kv_bytes: Mapping[str, int] = field(default_factory=dict)

    @property
    def problem(self) -> EdgecError | None:
        """What stands in the way of building it, if anything is known to."""
        return self.unsupported or (self.weights.problem if self.weights else None)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        weights = None
        if self.weights is not None:
            problem = self.weights.problem
            weights = {
                **{k: v for k, v in vars(self.weights).items() if k != "problem"},
                "problem": problem.to_json() if problem else None,
            }
        return {
            "kind": "model",
            "where": self.where,
            "source": self.kind,
            "commit": self.commit,
            "supported": self.unsupported is None,
            "unsupported": self.unsupported.to_json() if self.unsupported else None,
            "family": self.family,
            "nearest": self.nearest.to_json() if self.nearest else None,
            "facts": self.facts,
            "parameters": self.parameters,
            "sizes": [asdict(size) for size in self.sizes],
            "kv_bytes_per_token": dict(self.kv_bytes),
            "weights": weights,
        }


def inspect_model(source: ModelSource) -> ModelReport:
    """Report on a model; loads TVM only if its family is known.

    Args:
        source: whose config was read.

    Raises:
        CheckpointError: the config lacks a field that its family needs, or contradicts itself.
    """
    is_config = source.kind == "synthetic"
    kind = "config" if is_config else source.kind
    where = str(source.config_file) if is_config else source.where
    commit = source.hub.commit if source.hub else None
    facts = config_facts(source.config)
    family: str | None = None
    try:
        family = family_name(source.config)
        form = read_format(source.config, where)
        parameters, cache = _build(source.config)
    except UnsupportedModelError as error:
        nearest = None if family else nearest_family(source.config, families())
        return ModelReport(where, kind, commit, family, error, facts, nearest=nearest)

    def kv_bytes(dtype: FloatType) -> int:
        return _per_token(cache[dtype])

    return ModelReport(
        where,
        kind,
        commit,
        family,
        None,
        facts
        | _exact(cache["float32"], parameters)
        | {"context_length": longest_context(source.config)}
        | {"quantized_form": form and form.text},
        parameter_count(parameters),
        tuple(scheme_sizes(parameters, kv_bytes)),
        None
        if is_config
        else look_at_weights(source, parameters, load_family(source.config).IGNORED_TENSORS),
        kv_bytes=_kv_bytes(cache["float32"]),
    )


def _kv_bytes(cache: KVCacheSpec) -> dict[str, int]:
    """Bytes of one token in each way to hold it that fits the model's heads."""
    found = {}
    for stored in ("", "float16", INT8):
        with suppress(UnsupportedModelError):
            held = cache.holding(stored)
            found[held.kept_dtype] = _per_token(held)
    return found


def _per_token(cache: KVCacheSpec) -> int:
    return cache.nbytes(PAGE_SIZE) // PAGE_SIZE


def _build(config: dict[str, Any]) -> tuple[list[Parameter], dict[str, KVCacheSpec]]:
    """The parameters, and the shape of the KV cache by the type of activations."""
    family = load_family(config)
    from edgec.models.causal_lm import parameters_of  # noqa: PLC0415 - needs TVM loaded first

    settings = family.Config.from_hf(config)
    models = {dtype: family.build(settings, dtype) for dtype in ("float16", "float32")}
    return parameters_of(models["float32"]), {
        dtype: model.cache_spec for dtype, model in models.items()
    }


def _exact(cache: KVCacheSpec, parameters: list[Parameter]) -> dict[str, Any]:
    """What the family made of the config, where that says nothing or says it in another way."""
    return {
        "layers": cache.layers - cache.helpers,
        "heads": cache.heads,
        "kv_heads": cache.kv_heads,
        "head_dim": cache.head_dim,
        "rope_theta": cache.rope.theta,
        "rope_type": cache.rope.kind,
        "tied_embeddings": not any(parameter.role == "head" for parameter in parameters),
    }
