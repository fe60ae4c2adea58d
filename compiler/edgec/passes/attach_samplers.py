"""Add the functions with which engines sample on the GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import tvm
from tvm import relax, tirx

from edgec.scheduling.kernels import gpu_sampling, gpu_sort

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from edgec.scheduling.kernels.gpu_work_group import Limits


SAMPLER_FUNCTIONS = (
    "argsort_probs",
    "sample_with_top_p",
    "multinomial_from_uniform",
    "sampler_take_probs",
)


@tvm.transform.module_pass(opt_level=0, name="AttachSamplers")
class AttachSamplers:
    """``argsort_probs``, ``sample_with_top_p``, ``multinomial_from_uniform``, ``sampler_take_probs``.

    Arguments and results are those that the MLC engines expect. Symbolic dimensions: ``batch_size``
    rows of probabilities, ``num_samples`` drawn from them, ``num_positions`` whose probabilities
    are asked for.

    Args: vocab_size: entries of a row of probabilities; limits: of the device; names: of the
    functions that its engines call.
    """

    def __init__(
        self, vocab_size: int, limits: Limits, names: Sequence[str] = SAMPLER_FUNCTIONS
    ) -> None:
        self.vocab_size = vocab_size
        self.limits = limits
        self.names = names

    def transform_module(self, mod: tvm.IRModule, _context: Any) -> tvm.IRModule:
        """Add the functions."""
        samplers = _Samplers(relax.BlockBuilder(mod), self.vocab_size, self.limits)
        for name in self.names:
            getattr(samplers, name)()
        return samplers.builder.finalize()


class _Samplers:
    def __init__(self, builder: relax.BlockBuilder, vocab: int, limits: Limits) -> None:
        self.builder = builder
        self._vocab = vocab
        self._sort = gpu_sort.Sort.within(vocab, limits)
        self._chunks = gpu_sampling.Chunks.within(vocab, limits)
        self._limits = limits
        self._sums = builder.add_func(gpu_sampling.chunk_sums(self._chunks), "chunk_sums")

    def argsort_probs(self) -> None:
        """``probs (n, v)`` to the sorted probabilities, largest first, and their tokens."""
        sort, first, merge = self._sort, gpu_sort.sort_tiles, gpu_sort.merge_runs
        n = _size("batch_size")
        probs = self._rows("probs", n)
        types = [_rows(n, self._vocab, dtype) for dtype in ("float32", "int32")]
        tiles = self.builder.add_func(first(sort), "sort_tiles")
        runs = self.builder.add_func(merge(sort), "merge_runs") if sort.widths else None

        def body() -> relax.Var:
            entries = self.builder.emit(relax.call_tir(tiles, [probs], out_ty=types))
            for width in sort.widths:
                inputs = [self.builder.emit(relax.TupleGetItem(entries, i)) for i in range(2)]
                inputs.append(relax.prim_value(tirx.IntImm("int32", width)))
                entries = self.builder.emit(relax.call_tir(runs, inputs, out_ty=types))
            return entries

        self._function("argsort_probs", [probs], body)

    def sample_with_top_p(self) -> None:
        """Sorted probabilities, tokens, uniform, rows of the samples, top_p to sampled tokens."""
        n, k = _size("batch_size"), _size("num_samples")
        probs = self._rows("sorted_probs", n)
        tokens = self._rows("sorted_indices", n, "int32")
        uniform, rows = _vector("uniform_samples", k), _vector("sample_indices", k, "int32")
        top_p = _vector("top_p", n)
        kernel = self.builder.add_func(gpu_sampling.sample_top_p(self._chunks), "sample_top_p")

        def body() -> relax.Var:
            inputs = [probs, tokens, self._chunk_sums(probs, n), uniform, rows, top_p]
            return self.builder.emit(
                relax.call_tir(kernel, inputs, out_ty=relax.TensorType((k,), "int32"))
            )

        self._function("sample_with_top_p", [probs, tokens, uniform, rows, top_p], body)

    def multinomial_from_uniform(self) -> None:
        """Probabilities, uniform, rows of the samples to sampled tokens."""
        n, k = _size("batch_size"), _size("num_samples")
        probs = self._rows("probs", n)
        uniform, rows = _vector("uniform_samples", k), _vector("sample_indices", k, "int32")
        kernel = self.builder.add_func(gpu_sampling.sample(self._chunks), "sample")

        def body() -> relax.Var:
            inputs = [probs, self._chunk_sums(probs, n), uniform, rows]
            return self.builder.emit(
                relax.call_tir(kernel, inputs, out_ty=relax.TensorType((k,), "int32"))
            )

        self._function("multinomial_from_uniform", [probs, uniform, rows], body)

    def sampler_take_probs(self) -> None:
        """Sampled tokens' probabilities, the most likely tokens' probabilities, these tokens."""
        n, k, p = _size("batch_size"), _size("num_samples"), _size("num_positions")
        arguments = [
            self._rows("probs", n),
            self._rows("sorted_indices", n, "int32"),
            _vector("sample_indices", k, "int32"),
            _vector("sampling_results", k, "int32"),
            _vector("top_prob_offsets", p, "int32"),
        ]
        types = [
            relax.TensorType((k,), "float32"),
            relax.TensorType((p,), "float32"),
            relax.TensorType((p,), "int32"),
        ]
        function = gpu_sampling.take_probs(self._vocab, self._limits)
        kernel = self.builder.add_func(function, "take_probs")

        def body() -> relax.Var:
            return self.builder.emit(relax.call_tir(kernel, arguments, out_ty=types))

        self._function("sampler_take_probs", arguments, body)

    def _chunk_sums(self, probs: relax.Var, n: tirx.Var) -> relax.Var:
        out = relax.TensorType((n, self._chunks.count), "float32")
        return self.builder.emit(relax.call_tir(self._sums, [probs], out_ty=out))

    def _rows(self, name: str, n: tirx.Var, dtype: str = "float32") -> relax.Var:
        return relax.Var(name, relax.TensorType((n, self._vocab), dtype))

    def _function(
        self, name: str, parameters: Sequence[relax.Var], body: Callable[[], relax.Var]
    ) -> None:
        with self.builder.function(name, list(parameters)):
            with self.builder.dataflow():
                output = self.builder.emit_output(body())
            self.builder.emit_func_output(output)


def _size(name: str) -> tirx.Var:
    return tirx.Var(name, "int64")


def _rows(n: tirx.Var, vocab: int, dtype: str) -> relax.TensorType:
    return relax.TensorType((n, vocab), dtype)


def _vector(name: str, size: tirx.Var, dtype: str = "float32") -> relax.Var:
    return relax.Var(name, relax.TensorType((size,), dtype))
