"""How far two correct ways to compute the same logits may lie apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgec.quantization.schemes import FloatType

_FLOAT32_RELATIVE = 1e-5
_FLOAT32_LEAST = 1e-3
_FLOAT16_RELATIVE = 5e-2
_ROUNDED_RELATIVE = 2.5e-1
ROUNDED_TIMES = 3.0
"""How many times as far from a reference that doesn't round activations as torch with rounding."""


def tolerance(dtype: FloatType, logit_scale: float, rounding: float | None = 0.0) -> float:
    """Largest ``|difference of logits|`` that rounding explains.

    The artifact and the reference with the same weights differ in the order of sums and in where
    they round. Take each rounding as an independent relative error of the unit roundoff ``u``. The
    hidden states pass about 10 of them in series per layer (norm, projections, attention, products
    and the two residual sums), so the error of a logit has a standard deviation of about
    ``u * sqrt(10 * layers)`` of the logits' scale, and the largest of 1e7 to 1e8 logits is off by
    some 5.5 deviations.

    * float16, ``u = 2**-11``: 2e-2 of the scale for 6 layers, 5e-2 for 32. The limit is **5e-2**
      of the scale. Weights rounded to float16 add an error that averages out over a row.
    * float32, ``u = 2**-24``: 6e-6 for 32 layers; sums of thousands of products, in another order,
      bring it to **1e-5** of the scale. Logits of a language model stay below 100, so this is an
      absolute limit of **1e-3**, which is also the least limit.

    A wrong kernel is off by a good part of the scale itself.

    Kernels that round activations to 8 bits add the error of that, which depends on the model: it is
    measured with torch, see :mod:`edgec.verification.rounding`. Both are largest differences of many,
    from errors of the same distribution. Of 16 positions one was at most 2.7 times the other, of 256
    positions 1.6 times, in models of 2 to 12 layers; the limit is **3** times. Where there is no
    reference to measure it, the limit is a **quarter** of the scale: two random models of 4 and 16
    layers had 4e-2 and 0.16, a trained one of 6 layers 2e-2.

    Args:
        dtype: of the activations.
        logit_scale: the largest magnitude of the reference's logits.
        rounding: the largest ``|difference of logits|`` that rounding the activations makes in torch;
            0 where kernels don't round them, None where they do and it wasn't measured.
    """
    if rounding is None:
        return _ROUNDED_RELATIVE * logit_scale
    relative = _FLOAT16_RELATIVE if dtype == "float16" else _FLOAT32_RELATIVE
    least = 0.0 if dtype == "float16" else _FLOAT32_LEAST
    return max(least, relative * logit_scale) + ROUNDED_TIMES * rounding
