"""How far two correct ways to compute the same logits may lie apart."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from edgec.quantization.schemes import FloatType

_FLOAT32_RELATIVE = 1e-5
_FLOAT32_LEAST = 1e-3
_FLOAT16_RELATIVE = 5e-2


def tolerance(dtype: FloatType, logit_scale: float) -> float:
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

    Args:
        dtype: of the activations.
        logit_scale: the largest magnitude of the reference's logits.
    """
    if dtype == "float16":
        return _FLOAT16_RELATIVE * logit_scale
    return max(_FLOAT32_LEAST, _FLOAT32_RELATIVE * logit_scale)
