// <cuda_fp16.h>: half is the compiler's 16-bit type, so that a volatile one needs nothing special.
#pragma once

using half = _Float16;
using __half = half;

struct alignas(4) __half2 {
  half x, y;
};
using half2 = __half2;
inline half2 make_half2(half x, half y) { return {x, y}; }
inline half2 __halves2half2(half x, half y) { return {x, y}; }

inline half __float2half(float x) { return static_cast<half>(x); }
inline half __float2half_rn(float x) { return static_cast<half>(x); }
inline float __half2float(half x) { return static_cast<float>(x); }
inline half __int2half_rn(int x) { return static_cast<half>(x); }
inline unsigned short __half_as_ushort(half x) { return __builtin_bit_cast(unsigned short, x); }
inline half __ushort_as_half(unsigned short x) { return __builtin_bit_cast(half, x); }

inline bool __hgt(half a, half b) { return a > b; }
inline bool __hge(half a, half b) { return a >= b; }
inline bool __hlt(half a, half b) { return a < b; }
inline bool __hle(half a, half b) { return a <= b; }
inline bool __heq(half a, half b) { return a == b; }
inline bool __hne(half a, half b) { return a != b; }
inline bool __hisnan(half a) { return a != a; }

inline half __hadd(half a, half b) { return a + b; }
inline half __hsub(half a, half b) { return a - b; }
inline half __hmul(half a, half b) { return a * b; }
inline half __hdiv(half a, half b) { return a / b; }
inline half __hneg(half a) { return -a; }
inline half __habs(half a) { return static_cast<half>(fabsf(a)); }
inline half __hmax(half a, half b) { return static_cast<half>(fmaxf(a, b)); }
inline half __hmin(half a, half b) { return static_cast<half>(fminf(a, b)); }
inline half __hfma(half a, half b, half c) { return static_cast<half>(fmaf(a, b, c)); }

#define CUDA_HALF(NAME, EXPRESSION)                                 \
  inline half NAME(half value) {                                    \
    const float x = value;                                          \
    return static_cast<half>(EXPRESSION);                           \
  }
CUDA_HALF(hceil, ceilf(x))
CUDA_HALF(hcos, cosf(x))
CUDA_HALF(hexp, expf(x))
CUDA_HALF(hexp10, __builtin_exp10f(x))
CUDA_HALF(hexp2, exp2f(x))
CUDA_HALF(hfloor, floorf(x))
CUDA_HALF(hlog, logf(x))
CUDA_HALF(hlog10, log10f(x))
CUDA_HALF(hlog2, log2f(x))
CUDA_HALF(hrcp, 1.0f / x)
CUDA_HALF(hrint, rintf(x))
CUDA_HALF(hrsqrt, rsqrtf(x))
CUDA_HALF(hsin, sinf(x))
CUDA_HALF(hsqrt, sqrtf(x))
CUDA_HALF(htrunc, truncf(x))
#undef CUDA_HALF
