"""The model as transformers computes it, in float32 on the CPU.

torch and transformers are an extra, and are imported when a reference is built.
"""

from __future__ import annotations

import copy
import importlib
import os
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from edgec.errors import ToolchainError, VerificationError
from edgec.layouts.tensor_cache import TensorCache
from edgec.layouts.unpack import unpacked_rows
from edgec.models.rope_at_length import config_at_length
from edgec.runtime.threads import usable_cpus
from edgec.verification.adaptation import adapt
from edgec.verification.figures import BLOCK
from edgec.verification.images import image_patches
from edgec.verification.rounded_cache import holding_cache
from edgec.verification.rounding import ACTIVATIONS, ALL, CACHE, rounding
from edgec.verification.stacked_experts import checkpoint_tensors
from edgec.verification.streaming import ATTENTION, Stream, register

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from edgec.checkpoints.checkpoint import Checkpoint
    from edgec.layouts.find import Layout
    from edgec.models.parameters import Parameter, Source
    from edgec.models.window import SlidingWindow
    from edgec.quantization.schemes import TensorScheme
    from edgec.verification.interfaces import Logits

_INSTALL = "run: pip install 'edgec[reference]'"
_OLDEST = 5
# What decides in transformers how weights are loaded and where code comes from. Weights are
# filled in by us, in float32, and code comes from the installed package alone.
_NOT_OURS = ("dtype", "torch_dtype", "quantization_config", "auto_map", "attn_implementation")
# Initializers that draw random numbers: they would take minutes and touch every page of memory.
_RANDOM = frozenset(
    {
        "kaiming_normal_",
        "kaiming_uniform_",
        "normal_",
        "trunc_normal_",
        "uniform_",
        "xavier_normal_",
        "xavier_uniform_",
    }
)


class Reference:
    """A causal language model of transformers.

    Args:
        model: with its weights.
        window: that slides over the context; None to see all of it.
        groups: columns of activations that share a scale where the artifact's kernels round them, by
            the address of the layer's weights.
        stored: how the artifact's KV cache holds keys and values; empty: as they are computed.
    """

    def __init__(
        self,
        model: Any,
        window: SlidingWindow | None = None,
        groups: Mapping[int, int] = MappingProxyType({}),
        stored: str = "",
    ) -> None:
        self._model = model
        self._stream = None if window is None else Stream(model, window)
        self._groups = groups
        self._stored = stored
        self._rounds = False
        self._holds = ""

    @property
    def roundings(self) -> dict[str, Reference]:
        """The same model, weights in memory once, with what the artifact's kernels round, by its name.

        ``activations``: linear layers round their inputs. ``kv_cache``: keys and values are rounded. Where
        the artifact rounds both, ``kv_cache`` and ``rounding``, which is both. Empty where it rounds nothing.
        """
        if self._groups and self._stored:
            return {CACHE: self._rounding(cache=True), ALL: self._rounding(cache=True, layers=True)}
        if self._stored:
            return {CACHE: self._rounding(cache=True)}
        return {ACTIVATIONS: self._rounding(layers=True)} if self._groups else {}

    @property
    def rounded(self) -> Reference | None:
        """The one of ``roundings`` that rounds all that the artifact's kernels do; None where that is nothing."""
        return next(reversed(self.roundings.values()), None)

    def _rounding(self, *, layers: bool = False, cache: bool = False) -> Reference:
        other = copy.copy(self)
        other._rounds = layers  # noqa: SLF001 - it is one of these
        other._holds = self._stored if cache else ""  # noqa: SLF001
        return other

    def logits(self, ids: list[int], calls: Sequence[int] = ()) -> Logits:
        """Logits after each token.

        Args:
            ids: ``n`` token ids, from an empty context.
            calls: how many of them come at a time, which matters where a window slides; by default
                all at once.

        Returns:
            Float32 ``(n, vocab)``.
        """
        if self._stream is None:
            return self._forward(ids)
        self._stream.clear(self._holds)
        parts, start = [], 0
        for count in calls or (len(ids),):
            parts.append(self._forward(ids[start : start + count]))
            start += count
        assert start == len(ids), "the calls take all tokens"
        return np.concatenate(parts)

    def image_rows(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """The embeddings of an image, of a model that takes images.

        Args:
            pixels: ``(size, size, 3)``; a multiple of what the model makes a token of.

        Returns:
            Float32 ``(tokens, hidden)``.
        """
        import torch  # noqa: PLC0415 - an extra

        vision = self._model.config.vision_config
        patches = image_patches(pixels, int(vision.patch_size), int(vision.spatial_merge_size))
        side = len(pixels) // int(vision.patch_size)
        with torch.inference_mode(), self._rounded_layers():
            found = self._model.model.get_image_features(
                torch.from_numpy(patches), torch.tensor([[1, side, side]])
            )
        rows: npt.NDArray[np.float32] = found.pooler_output[0].numpy()
        return rows

    def _forward(self, ids: list[int]) -> Logits:
        import torch  # noqa: PLC0415 - an extra

        cache: dict[str, Any] = {"use_cache": False}
        if self._holds and self._stream is None:
            cache = {"use_cache": True, "past_key_values": holding_cache(self._holds)}
        with torch.inference_mode(), self._rounded_layers():
            output = self._model(torch.tensor([ids]), **cache)
        result: Logits = output.logits[0].numpy()
        return result

    def _rounded_layers(self) -> AbstractContextManager[Any]:
        return rounding(self._groups if self._rounds else {})


def reference_model(
    config: dict[str, Any],
    fill: Callable[[str, npt.NDArray[np.float32]], None],
    window: SlidingWindow | None = None,
    *,
    context_length: int | None = None,
    groups: Mapping[int, int] = MappingProxyType({}),
    stored: str = "",
) -> Reference:
    """Build a model and let ``fill`` write its weights in place: they are in memory once.

    torch's thread count is set to the processors that this process may use.

    Args:
        config: the content of ``config.json``.
        fill: writes the tensor of a name into a C-contiguous float32 array of its shape. It is
            called once for each tensor, by its name in checkpoints; of tied ones, for the first.
        window: that slides over the context; None to see all of it.
        context_length: of the library it is compared with, which some rotary embeddings depend on; None: the
            model decides, by the length of each text.
        groups: see :class:`Reference`; ``fill`` may add to them.
        stored: see :class:`Reference`.

    Raises:
        ToolchainError: torch or transformers is missing or too old for this model.
    """
    torch, transformers = _libraries()
    torch.set_num_threads(usable_cpus())
    if context_length is not None:
        config = config_at_length(config, context_length)
    ours = adapt(config)
    config = ours.config
    model_type = config.get("model_type")
    if model_type not in transformers.CONFIG_MAPPING:
        raise ToolchainError(
            f"transformers {transformers.__version__} doesn't know the architecture"
            f" {model_type!r}, so there is no reference for it",
            remedy="run: pip install --upgrade transformers",
        )
    kept = {name: value for name, value in config.items() if name not in _NOT_OURS}
    settings = transformers.CONFIG_MAPPING[model_type].from_dict(kept)
    register(transformers)
    with _without_random_numbers(torch):
        model = _auto_model(transformers, config).from_config(
            settings,
            dtype=torch.float32,
            attn_implementation="eager" if window is None else ATTENTION,
        )
    model.eval().requires_grad_(requires_grad=False)
    filled: set[int] = set()
    for name, tensor in model.state_dict().items():
        if tensor.data_ptr() not in filled:
            filled.add(tensor.data_ptr())
            their_name = ours.stored(name)
            for source, part in checkpoint_tensors(str(model_type), their_name, tensor.numpy()):
                fill(source, part)
            if (factor := ours.factor(name)) != 1:
                tensor.mul_(factor)
    return Reference(model, window, groups, stored)


def _auto_model(transformers: Any, config: dict[str, Any]) -> Any:
    """What makes a model of a config: one of text alone, or of text with images."""
    if isinstance(config.get("vision_config"), dict):
        return transformers.AutoModelForImageTextToText
    return transformers.AutoModelForCausalLM


def from_checkpoint(
    checkpoint: Checkpoint,
    window: SlidingWindow | None = None,
    *,
    context_length: int | None = None,
    stored: str = "",
) -> Reference:
    """The original model, with the artifact's window if it has one.

    Args:
        checkpoint: its weights.
        window: that slides over the context; None to see all of it.
        context_length: see :func:`reference_model`.
        stored: see :class:`Reference`; of an artifact that ships these weights.

    Raises:
        ToolchainError: torch or transformers is missing.
        CheckpointError: a tensor is missing or can't be read.
    """
    return reference_model(
        checkpoint.config,
        lambda name, out: checkpoint.rows_into(name, 0, len(out), out),
        window,
        context_length=context_length,
        stored=stored,
    )


def from_artifact(
    config: dict[str, Any],
    weights: Path,
    parameters: Sequence[Parameter],
    schemes: Mapping[str, TensorScheme | None],
    layout: Layout,
    window: SlidingWindow | None = None,
    *,
    context_length: int | None = None,
    stored: str = "",
) -> Reference:
    """The model with the shipped weights: codes times scales, in float32.

    Args:
        config: the content of the original model's ``config.json``.
        weights: a weight folder.
        parameters: of the model; each is split into the checkpoint tensors it was made of.
        schemes: how each is quantized, by its name.
        layout: of the weight folder.
        window: that slides over the context; None to see all of it.
        context_length: see :func:`reference_model`.
        stored: see :class:`Reference`.

    Raises:
        ToolchainError: torch or transformers is missing.
        CheckpointError: the weight folder is damaged.
        VerificationError: transformers has other tensors for this model than the artifact.
    """
    cache = TensorCache(weights)
    places = _places(parameters)
    groups: dict[int, int] = {}
    unused = set(places)

    def fill(name: str, out: npt.NDArray[np.float32]) -> None:
        unused.discard(name)
        parameter, first, source = places.get(name, (None, 0, None))
        if parameter is None or source is None or source.shape != out.shape:
            shape = "none" if source is None else source.shape
            raise _other_model(f"{name} of shape {out.shape}", f"the artifact has {shape}")
        group = layout.activation_group(parameter, schemes[parameter.name])
        if group is not None:
            groups[out.ctypes.data] = group
        step = max(1, BLOCK // int(np.prod(out.shape[1:])))
        for start in range(0, len(out), step):
            stop = min(start + step, len(out))
            rows = unpacked_rows(
                layout, cache, parameter, schemes[parameter.name], first + start, first + stop
            )
            done = 0
            for row, count in source.runs(start, stop):
                out[row : row + count] = rows[done : done + count] - np.float32(source.offset)
                done += count

    reference = reference_model(
        config, fill, window, context_length=context_length, groups=groups, stored=stored
    )
    if unused:
        raise _other_model("no such tensor", f"the artifact has {min(unused)}")
    return reference


def _places(
    parameters: Sequence[Parameter],
) -> dict[str, tuple[Parameter, int, Source]]:
    """Where each checkpoint tensor lies: its parameter and the row at which it begins."""
    places: dict[str, tuple[Parameter, int, Source]] = {}
    for parameter in parameters:
        row = 0
        for source in parameter.sources:
            places[source.name] = (parameter, row, source)
            row += source.shape[0]
    return places


def _other_model(theirs: str, ours: str) -> VerificationError:
    return VerificationError(
        f"the reference model has {theirs}; {ours}",
        remedy="check that config.json and the artifact belong to the same model",
    )


def _libraries() -> tuple[Any, Any]:
    # Read when torch is first loaded. OpenMP's threads spin while they wait, by default; where
    # the artifact's threads or another program want the processors, that made the reference 10 to
    # 40 times as slow.
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    try:
        torch = importlib.import_module("torch")
        transformers = importlib.import_module("transformers")
    except ImportError as error:
        raise ToolchainError(
            f"the reference needs torch and transformers ({error})", remedy=_INSTALL
        ) from error
    if int(transformers.__version__.partition(".")[0]) < _OLDEST:
        # Older ones take no notice of rope_parameters and would give a wrong reference.
        raise ToolchainError(
            f"the reference needs transformers {_OLDEST} or newer, and"
            f" {transformers.__version__} is installed",
            remedy=f"{_INSTALL} --upgrade",
        )
    return torch, transformers


def _without_random_numbers(torch: Any) -> Any:
    """A context in which random initializers leave memory as it is.

    Models are constructed as usual, so that computed buffers such as RoPE's frequencies are right,
    but a weight's memory isn't touched before it is filled.
    """

    class SkipRandom(torch.overrides.TorchFunctionMode):  # type: ignore[misc]
        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            arguments = kwargs or {}
            if getattr(function, "__name__", "") in _RANDOM:
                return args[0] if args else arguments["tensor"]
            return function(*args, **arguments)

    return SkipRandom()
