// <cuda_bf16.h>: a bfloat16 is the upper half of a float; sums and products round once.
#pragma once

struct __nv_bfloat16 {
  unsigned short bits;

  __nv_bfloat16() = default;
  __nv_bfloat16(const __nv_bfloat16&) = default;
  __nv_bfloat16(const volatile __nv_bfloat16& other) : bits(other.bits) {}
  __nv_bfloat16(float value) {
    const unsigned word = __builtin_bit_cast(unsigned, value);
    const unsigned even = (word >> 16 & 1) + 0x7FFF;
    bits = static_cast<unsigned short>(value != value ? 0x7FFF : (word + even) >> 16);
  }
  __nv_bfloat16& operator=(const __nv_bfloat16&) = default;
  void operator=(const __nv_bfloat16& other) volatile { bits = other.bits; }
  operator float() const { return __builtin_bit_cast(float, static_cast<unsigned>(bits) << 16); }
  operator float() const volatile {
    return __builtin_bit_cast(float, static_cast<unsigned>(bits) << 16);
  }
};
using nv_bfloat16 = __nv_bfloat16;

#define CUDA_BFLOAT(OPERATOR)                                                    \
  inline nv_bfloat16 operator OPERATOR(nv_bfloat16 a, nv_bfloat16 b) {           \
    return static_cast<float>(a) OPERATOR static_cast<float>(b);                 \
  }                                                                              \
  inline nv_bfloat16& operator OPERATOR##=(nv_bfloat16& a, nv_bfloat16 b) {      \
    return a = a OPERATOR b;                                                     \
  }
CUDA_BFLOAT(+)
CUDA_BFLOAT(-)
CUDA_BFLOAT(*)
CUDA_BFLOAT(/)
#undef CUDA_BFLOAT
inline nv_bfloat16 operator-(nv_bfloat16 a) { return -static_cast<float>(a); }
inline bool operator<(nv_bfloat16 a, nv_bfloat16 b) { return float(a) < float(b); }
inline bool operator<=(nv_bfloat16 a, nv_bfloat16 b) { return float(a) <= float(b); }
inline bool operator>(nv_bfloat16 a, nv_bfloat16 b) { return float(a) > float(b); }
inline bool operator>=(nv_bfloat16 a, nv_bfloat16 b) { return float(a) >= float(b); }
inline bool operator==(nv_bfloat16 a, nv_bfloat16 b) { return float(a) == float(b); }
inline bool operator!=(nv_bfloat16 a, nv_bfloat16 b) { return float(a) != float(b); }

struct alignas(4) __nv_bfloat162 {
  nv_bfloat16 x, y;
  __nv_bfloat162() = default;
  __nv_bfloat162(nv_bfloat16 x, nv_bfloat16 y) : x(x), y(y) {}
};
using nv_bfloat162 = __nv_bfloat162;

inline nv_bfloat16 __float2bfloat16(float x) { return x; }
inline nv_bfloat16 __float2bfloat16_rn(float x) { return x; }
inline float __bfloat162float(nv_bfloat16 x) { return x; }

inline bool __hgt(nv_bfloat16 a, nv_bfloat16 b) { return a > b; }
inline bool __hlt(nv_bfloat16 a, nv_bfloat16 b) { return a < b; }

#define CUDA_BFLOAT(NAME, FUNCTION) \
  inline nv_bfloat16 NAME(nv_bfloat16 x) { return FUNCTION(static_cast<float>(x)); }
CUDA_BFLOAT(hceil, ceilf)
CUDA_BFLOAT(hcos, cosf)
CUDA_BFLOAT(hexp, expf)
CUDA_BFLOAT(hexp2, exp2f)
CUDA_BFLOAT(hfloor, floorf)
CUDA_BFLOAT(hlog, logf)
CUDA_BFLOAT(hlog2, log2f)
CUDA_BFLOAT(hrint, rintf)
CUDA_BFLOAT(hrsqrt, rsqrtf)
CUDA_BFLOAT(hsin, sinf)
CUDA_BFLOAT(hsqrt, sqrtf)
CUDA_BFLOAT(htrunc, truncf)
#undef CUDA_BFLOAT
