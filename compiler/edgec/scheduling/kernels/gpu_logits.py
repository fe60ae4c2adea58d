"""What happens to logits before a token is sampled, on GPUs: bias, penalties, grammar mask.

Signatures and meanings are those of :mod:`edgec.scheduling.kernels.cpu_logits`. A (token, row)
pair may occur once in a call: its pairs are handled at the same time.
"""

from __future__ import annotations

from typing import Any

from tvm.script.ir_builder import IRBuilder
from tvm.tirx.script import builder as T

from edgec.scheduling.kernels.cpu_logits import MASKED
from edgec.scheduling.kernels.gpu_softmax import softmax_with_temperature
from edgec.scheduling.kernels.gpu_work_group import Limits, Memory, kernel_attributes, launch, when
from edgec.scheduling.kernels.logits import LogitKernels

_LANES = 256


def logit_kernels(vocab: int, limits: Limits) -> LogitKernels:
    """The GPU's kernels, for :class:`edgec.passes.attach_logit_functions.AttachLogitFunctions`."""
    makers = (apply_logit_bias, apply_penalty, apply_bitmask)
    return LogitKernels(
        in_place=tuple(make(vocab, limits) for make in makers),
        softmax=softmax_with_temperature(vocab, limits),
    )


def apply_logit_bias(vocab: int, limits: Limits) -> Any:
    """``logits[pos2seq_id[i], token_ids[i]] += logit_bias[i]``."""
    lanes = limits.lanes(_LANES)
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_name("apply_logit_bias_inplace")
            kernel_attributes("apply_logit_bias_inplace")
            n, m = T.int32(), T.int32()
            logits = Memory(T.arg("logits", T.buffer((n, vocab), "float32")))
            pos2seq_id = T.arg("pos2seq_id", T.buffer((m,), "int32"))
            token_ids = T.arg("token_ids", T.buffer((m,), "int32"))
            logit_bias = T.arg("logit_bias", T.buffer((m,), "float32"))
            with launch(lanes, T.ceildiv(m, lanes)) as (lane, group):
                i = group * lanes + lane
                with when(i < m):
                    place = pos2seq_id[i], token_ids[i]
                    logits[place] = logits[place] + logit_bias[i]
        return builder.get()


def apply_penalty(vocab: int, limits: Limits) -> Any:
    """Presence and frequency penalties are subtracted, then the repetition penalty divides."""
    lanes = limits.lanes(_LANES)
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_name("apply_penalty_inplace")
            kernel_attributes("apply_penalty_inplace")
            n, s, m = T.int32(), T.int32(), T.int32()
            logits = Memory(T.arg("logits", T.buffer((n, vocab), "float32")))
            seq_ids = T.arg("seq_ids", T.buffer((s,), "int32"))
            pos2seq_id = T.arg("pos2seq_id", T.buffer((m,), "int32"))
            token_ids = T.arg("token_ids", T.buffer((m,), "int32"))
            token_cnt = T.arg("token_cnt", T.buffer((m,), "int32"))
            penalties = T.arg("penalties", T.buffer((s, 3), "float32"))
            with launch(lanes, T.ceildiv(m, lanes)) as (lane, group):
                i = group * lanes + lane
                with when(i < m):
                    sequence = pos2seq_id[i]
                    place = seq_ids[sequence], token_ids[i]
                    presence, frequency, repetition = (penalties[sequence, p] for p in range(3))
                    count = T.Cast("float32", token_cnt[i])
                    lowered = T.Bind(logits[place] - (presence + count * frequency))
                    logits[place] = T.if_then_else(
                        lowered < T.float32(0), lowered * repetition, lowered / repetition
                    )
        return builder.get()


def apply_bitmask(vocab: int, limits: Limits) -> Any:
    """Tokens whose bit (``bitmask`` ``(n, ceil(v / 32))``, lowest bit first) is 0 are masked."""
    lanes = limits.lanes(_LANES)
    with IRBuilder() as builder:
        with T.prim_func(s_tir=True):
            T.func_name("apply_bitmask_inplace")
            kernel_attributes("apply_bitmask_inplace")
            n, s = T.int32(), T.int32()
            logits = Memory(T.arg("logits", T.buffer((n, vocab), "float32")))
            seq_ids = T.arg("seq_ids", T.buffer((s,), "int32"))
            bitmask = T.arg("bitmask", T.buffer((n, -(-vocab // 32)), "int32"))
            with launch(lanes, -(-vocab // lanes), s) as (lane, group, sequence):
                token = group * lanes + lane
                with when(token < vocab):
                    row = seq_ids[sequence]
                    word = bitmask[row, T.shift_right(token, 5)]
                    bit = T.bitwise_and(T.shift_right(word, T.bitwise_and(token, 31)), 1)
                    # Logits of allowed tokens aren't even read.
                    with when(bit == 0):
                        logits[row, token] = T.float32(MASKED)
        return builder.get()
