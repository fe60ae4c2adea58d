"""What kernels may use of a device's C library, and under which names systems load it."""

from __future__ import annotations

_MATH = (
    *("acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "cos", "cosh"),
    *("erf", "erfc", "exp", "exp2", "expm1", "fabs", "floor", "fma", "fmax", "fmin", "fmod"),
    *("hypot", "ldexp", "log", "log10", "log1p", "log2", "nearbyint", "pow", "rint", "round"),
    *("sin", "sinh", "sqrt", "tan", "tanh", "trunc"),
)
MATH_FUNCTIONS = frozenset((*_MATH, *(f"{name}f" for name in _MATH)))
"""Functions of the C library's libm that kernels may call."""
C_FUNCTIONS = frozenset(("memcpy", "memmove", "memset"))
"""Functions of the C library's libc that kernels may call."""

LIBRARIES = {
    "android": {"libm.so": MATH_FUNCTIONS, "libc.so": C_FUNCTIONS},
    "gnu": {"libm.so.6": MATH_FUNCTIONS, "libc.so.6": C_FUNCTIONS},
}
"""File names and functions of the libraries, by what the last part of a triple begins with."""
