"""What happens to logits before a token is sampled, on CPUs: bias, penalties, grammar mask, softmax.

Signatures and meanings are those the MLC engines call. ``n`` rows of logits, ``v`` entries of the
vocabulary, ``m`` (token, row) pairs, ``s`` sequences; all index tensors are int32, all others
float32. The first three work in place.
"""

# TVMScript is parsed from source, not run: its arguments are declared in the body.
from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from edgec.scheduling.kernels import HAND_WRITTEN
from edgec.scheduling.kernels.cpu_softmax import softmax_with_temperature
from edgec.scheduling.kernels.logits import LogitKernels

MASKED = -3.4028234663852886e38
"""The lowest float32: a token the grammar forbids."""


def logit_kernels(vocab: int, vector_bits: int) -> LogitKernels:
    """The CPU's kernels, for :class:`edgec.passes.attach_logit_functions.AttachLogitFunctions`."""
    return LogitKernels(
        in_place=(apply_logit_bias(vocab), apply_penalty(vocab), apply_bitmask(vocab)),
        softmax=(("softmax", softmax_with_temperature(vocab, vector_bits)),),
    )


def apply_logit_bias(vocab: int) -> Any:
    """``logits[pos2seq_id[i], token_ids[i]] += logit_bias[i]``."""

    @T.prim_func(s_tir=True)
    def apply_logit_bias_inplace(
        logits_h: T.handle, pos2seq_id_h: T.handle, token_ids_h: T.handle, logit_bias_h: T.handle
    ):
        T.func_attr(
            {
                "global_symbol": "apply_logit_bias_inplace",
                "tirx.noalias": True,
                "tirx.is_scheduled": True,
                HAND_WRITTEN: True,
            }
        )
        n = T.int32()
        m = T.int32()
        logits = T.match_buffer(logits_h, (n, vocab), "float32")
        pos2seq_id = T.match_buffer(pos2seq_id_h, (m,), "int32")
        token_ids = T.match_buffer(token_ids_h, (m,), "int32")
        logit_bias = T.match_buffer(logit_bias_h, (m,), "float32")
        for i in T.serial(m):
            logits[pos2seq_id[i], token_ids[i]] = (
                logits[pos2seq_id[i], token_ids[i]] + logit_bias[i]
            )

    return apply_logit_bias_inplace


def apply_penalty(vocab: int) -> Any:
    """Presence and frequency penalties are subtracted, then the repetition penalty divides.

    A positive logit is divided by the repetition penalty and a negative one multiplied, so that
    both become less likely (https://arxiv.org/abs/1909.05858). ``penalties`` is ``(s, 3)``:
    presence, frequency, repetition.
    """

    @T.prim_func(s_tir=True)
    def apply_penalty_inplace(
        logits_h: T.handle,
        seq_ids_h: T.handle,
        pos2seq_id_h: T.handle,
        token_ids_h: T.handle,
        token_cnt_h: T.handle,
        penalties_h: T.handle,
    ):
        T.func_attr(
            {
                "global_symbol": "apply_penalty_inplace",
                "tirx.noalias": True,
                "tirx.is_scheduled": True,
                HAND_WRITTEN: True,
            }
        )
        n = T.int32()
        s = T.int32()
        m = T.int32()
        logits = T.match_buffer(logits_h, (n, vocab), "float32")
        seq_ids = T.match_buffer(seq_ids_h, (s,), "int32")
        pos2seq_id = T.match_buffer(pos2seq_id_h, (m,), "int32")
        token_ids = T.match_buffer(token_ids_h, (m,), "int32")
        token_cnt = T.match_buffer(token_cnt_h, (m,), "int32")
        penalties = T.match_buffer(penalties_h, (s, 3), "float32")
        for i in T.serial(m):
            logits[seq_ids[pos2seq_id[i]], token_ids[i]] = logits[
                seq_ids[pos2seq_id[i]], token_ids[i]
            ] - (
                penalties[pos2seq_id[i], 0]
                + T.Cast("float32", token_cnt[i]) * penalties[pos2seq_id[i], 1]
            )
            logits[seq_ids[pos2seq_id[i]], token_ids[i]] = T.if_then_else(
                logits[seq_ids[pos2seq_id[i]], token_ids[i]] < T.float32(0),
                logits[seq_ids[pos2seq_id[i]], token_ids[i]] * penalties[pos2seq_id[i], 2],
                logits[seq_ids[pos2seq_id[i]], token_ids[i]] / penalties[pos2seq_id[i], 2],
            )

    return apply_penalty_inplace


def apply_bitmask(vocab: int) -> Any:
    """Tokens whose bit (``bitmask`` ``(n, ceil(v / 32))``, lowest bit first) is 0 are masked."""
    words = -(-vocab // 32)

    @T.prim_func(s_tir=True)
    def apply_bitmask_inplace(logits_h: T.handle, seq_ids_h: T.handle, bitmask_h: T.handle):
        T.func_attr(
            {
                "global_symbol": "apply_bitmask_inplace",
                "tirx.noalias": True,
                "tirx.is_scheduled": True,
                HAND_WRITTEN: True,
            }
        )
        n = T.int32()
        s = T.int32()
        logits = T.match_buffer(logits_h, (n, vocab), "float32")
        seq_ids = T.match_buffer(seq_ids_h, (s,), "int32")
        bitmask = T.match_buffer(bitmask_h, (n, words), "int32")
        for i, j in T.grid(s, vocab):
            logits[seq_ids[i], j] = T.if_then_else(
                T.bitwise_and(T.shift_right(bitmask[seq_ids[i], j // 32], j % 32), 1) == 1,
                logits[seq_ids[i], j],
                T.float32(MASKED),
            )

    return apply_bitmask_inplace
