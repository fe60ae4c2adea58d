// Device functions of one thread: mathematics beyond <math.h>, bits, reads, atomics.
#pragma once

inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }

// The fast ones are less exact on a GPU, by a few units in the last place.
inline float __expf(float x) { return expf(x); }
inline float __exp10f(float x) { return __builtin_exp10f(x); }
inline float __logf(float x) { return logf(x); }
inline float __log2f(float x) { return log2f(x); }
inline float __log10f(float x) { return log10f(x); }
inline float __powf(float x, float y) { return powf(x, y); }
inline float __sinf(float x) { return sinf(x); }
inline float __cosf(float x) { return cosf(x); }
inline float __tanf(float x) { return tanf(x); }
inline float __fdividef(float x, float y) { return x / y; }

template <class T>
EMU_INLINE T max(T a, T b) {
  if constexpr (std::is_floating_point_v<T>)
    return fmax(a, b);
  else
    return a < b ? b : a;
}
template <class T>
EMU_INLINE T min(T a, T b) {
  if constexpr (std::is_floating_point_v<T>)
    return fmin(a, b);
  else
    return b < a ? b : a;
}

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __float_as_int(float x) { return __builtin_bit_cast(int, x); }
inline unsigned __float_as_uint(float x) { return __builtin_bit_cast(unsigned, x); }
inline float __int_as_float(int x) { return __builtin_bit_cast(float, x); }
inline float __uint_as_float(unsigned x) { return __builtin_bit_cast(float, x); }

template <class T>
EMU_INLINE T __ldg(const T* pointer) {
  return *pointer;
}

namespace shim {

// old = *pointer; *pointer = f(old). Work-groups run on several threads at once.
template <class T, class F>
EMU_INLINE T update(T* pointer, F f) {
  return emu::atomically(pointer, [&](T* shared) __attribute__((always_inline)) {
    T old;
    __atomic_load(shared, &old, __ATOMIC_RELAXED);
    for (;;) {
      T fresh = f(old);
      if (__atomic_compare_exchange(shared, &old, &fresh, true, __ATOMIC_RELAXED,
                                    __ATOMIC_RELAXED))
        return old;
    }
  });
}

}  // namespace shim

template <class T>
EMU_INLINE T atomicAdd(T* pointer, std::type_identity_t<T> value) {
  return shim::update(pointer, [=](T old) { return static_cast<T>(old + value); });
}
template <class T>
EMU_INLINE T atomicSub(T* pointer, std::type_identity_t<T> value) {
  return shim::update(pointer, [=](T old) { return static_cast<T>(old - value); });
}
template <class T>
EMU_INLINE T atomicMax(T* pointer, std::type_identity_t<T> value) {
  return shim::update(pointer, [=](T old) { return old < value ? value : old; });
}
template <class T>
EMU_INLINE T atomicMin(T* pointer, std::type_identity_t<T> value) {
  return shim::update(pointer, [=](T old) { return value < old ? value : old; });
}
template <class T>
EMU_INLINE T atomicExch(T* pointer, std::type_identity_t<T> value) {
  return shim::update(pointer, [=](T) { return value; });
}
template <class T>
EMU_INLINE T atomicCAS(T* pointer, std::type_identity_t<T> expected,
                       std::type_identity_t<T> value) {
  return shim::update(pointer, [=](T old) { return old == expected ? value : old; });
}
