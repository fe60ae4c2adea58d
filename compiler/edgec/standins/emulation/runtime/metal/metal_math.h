// Mathematics on scalars and, element by element, on vectors. Functions of half round once: their
// float result to half. Arguments of one call have one type, as with Apple's overloads.
#pragma once

namespace metal {

template <class T>
concept Floating = std::is_same_v<typename Shape<T>::Element, float> ||
                   std::is_same_v<typename Shape<T>::Element, half>;

template <class F, class T, class... More>
EMU_INLINE T elementwise(F f, T first, More... more) {
  if constexpr (Scalar<T>) {
    return f(first, more...);
  } else {
    T result;
    for (int i = 0; i < Shape<T>::kLength; ++i) result[i] = f(first[i], more[i]...);
    return result;
  }
}

#define METAL_UNARY(NAME, EXPRESSION)                                         \
  template <Floating T>                                                       \
  EMU_INLINE T NAME(T value) {                                                \
    using Element = typename Shape<T>::Element;                               \
    return elementwise(                                                       \
        [](Element element) {                                                 \
          const float x = static_cast<float>(element);                        \
          return static_cast<Element>(EXPRESSION);                            \
        },                                                                    \
        value);                                                               \
  }
METAL_UNARY(acos, __builtin_acosf(x))
METAL_UNARY(asin, __builtin_asinf(x))
METAL_UNARY(atan, __builtin_atanf(x))
METAL_UNARY(ceil, __builtin_ceilf(x))
METAL_UNARY(cos, __builtin_cosf(x))
METAL_UNARY(cosh, __builtin_coshf(x))
METAL_UNARY(exp, __builtin_expf(x))
METAL_UNARY(exp2, __builtin_exp2f(x))
METAL_UNARY(exp10, __builtin_exp10f(x))
METAL_UNARY(fabs, __builtin_fabsf(x))
METAL_UNARY(floor, __builtin_floorf(x))
METAL_UNARY(log, __builtin_logf(x))
METAL_UNARY(log2, __builtin_log2f(x))
METAL_UNARY(log10, __builtin_log10f(x))
METAL_UNARY(rint, __builtin_rintf(x))
METAL_UNARY(round, __builtin_roundf(x))
METAL_UNARY(rsqrt, 1.0f / __builtin_sqrtf(x))
METAL_UNARY(sin, __builtin_sinf(x))
METAL_UNARY(sinh, __builtin_sinhf(x))
METAL_UNARY(sqrt, __builtin_sqrtf(x))
METAL_UNARY(tan, __builtin_tanf(x))
METAL_UNARY(tanh, __builtin_tanhf(x))
METAL_UNARY(trunc, __builtin_truncf(x))
#undef METAL_UNARY

#define METAL_BINARY(NAME, EXPRESSION)                                        \
  template <Floating T>                                                       \
  EMU_INLINE T NAME(T left, T right) {                                        \
    using Element = typename Shape<T>::Element;                               \
    return elementwise(                                                       \
        [](Element a, Element b) {                                            \
          const float x = static_cast<float>(a), y = static_cast<float>(b);   \
          return static_cast<Element>(EXPRESSION);                            \
        },                                                                    \
        left, right);                                                         \
  }
METAL_BINARY(atan2, __builtin_atan2f(x, y))
METAL_BINARY(fmax, __builtin_fmaxf(x, y))
METAL_BINARY(fmin, __builtin_fminf(x, y))
METAL_BINARY(fmod, __builtin_fmodf(x, y))
METAL_BINARY(pow, __builtin_powf(x, y))
#undef METAL_BINARY

template <Floating T>
EMU_INLINE T fma(T a, T b, T c) {
  using Element = typename Shape<T>::Element;
  // The product of halves is exact in float, and so is most often the sum: one rounding.
  return elementwise(
      [](Element x, Element y, Element z) {
        return static_cast<Element>(__builtin_fmaf(x, y, z));
      },
      a, b, c);
}

// A NaN on the left stays, as "y if x < y, otherwise x" says.
template <class T>
EMU_INLINE T max(T x, T y) {
  return elementwise([](auto a, auto b) { return a < b ? b : a; }, x, y);
}
template <class T>
EMU_INLINE T min(T x, T y) {
  return elementwise([](auto a, auto b) { return b < a ? b : a; }, x, y);
}
template <class T>
EMU_INLINE T clamp(T x, T low, T high) {
  return min(max(x, low), high);
}
template <class T>
EMU_INLINE T abs(T x) {
  return elementwise([](auto a) { return a < 0 ? static_cast<decltype(a)>(-a) : a; }, x);
}

template <Scalar T>
EMU_INLINE T select(T otherwise, T chosen, bool condition) {
  return condition ? chosen : otherwise;
}

template <Scalar T>
EMU_INLINE bool isnan(T x) {
  return x != x;
}
template <Scalar T>
EMU_INLINE bool isinf(T x) {
  return __builtin_isinf(static_cast<float>(x));
}
EMU_INLINE uint popcount(uint x) { return __builtin_popcount(x); }

}  // namespace metal
