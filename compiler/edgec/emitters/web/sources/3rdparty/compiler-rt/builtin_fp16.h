// The one conversion that TVM's runtime asks of this file: from half precision to float.
#ifndef TVM_COMPILER_RT_BUILTIN_FP16_H_
#define TVM_COMPILER_RT_BUILTIN_FP16_H_

#include <cstdint>
#include <cstring>

template <typename Source, typename SourceBits, int kSourceFraction, typename Wide,
          typename WideBits, int kWideFraction>
inline Wide __extendXfYf2__(Source half) {
  static_assert(sizeof(Source) == 2 && kSourceFraction == 10, "the source is half precision");
  static_assert(sizeof(Wide) == 4 && kWideFraction == 23, "the result is a float");
  uint32_t sign = static_cast<uint32_t>(half >> 15) << 31;
  uint32_t exponent = half >> 10 & 0x1F, fraction = half & 0x3FF;
  uint32_t bits;
  if (exponent == 0x1F) {  // infinity, or not a number
    bits = sign | 0x7F800000 | fraction << 13;
  } else if (exponent != 0) {
    bits = sign | (exponent + 112) << 23 | fraction << 13;
  } else {  // zero, or less than the least normal number: fraction * 2^-24
    float value = static_cast<float>(fraction) * 0x1p-24f;
    std::memcpy(&bits, &value, sizeof(bits));
    bits |= sign;
  }
  Wide wide;
  std::memcpy(&wide, &bits, sizeof(wide));
  return wide;
}

#endif  // TVM_COMPILER_RT_BUILTIN_FP16_H_
