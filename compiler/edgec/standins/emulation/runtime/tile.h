// Rows of eight elements: the width at which the shims compute matrices of warps and simdgroups.
#pragma once

#include <utility>

#include "emu.h"

namespace tile {

constexpr int kWidth = 8;

template <class T, int N>
using Vector = T __attribute__((ext_vector_type(N)));
using Float8 = Vector<float, kWidth>;

// Vectors in memory that is aligned for single elements only.
template <int N, class T>
EMU_INLINE Vector<T, N> load(const T* from) {
  Vector<T, N> result;
  __builtin_memcpy(&result, from, sizeof result);
  return result;
}
template <class T, int N>
EMU_INLINE void store(Vector<T, N> values, T* to) {
  __builtin_memcpy(to, &values, sizeof values);
}

// Types that clang has vectors of; others are classes and are handled one by one.
template <class T>
constexpr bool kBuiltIn = std::is_same_v<T, float> || std::is_same_v<T, _Float16>;

template <class T>
EMU_INLINE Float8 widen(const T* from) {
  if constexpr (kBuiltIn<T>) {
    return __builtin_convertvector(load<kWidth>(from), Float8);
  } else {
    Float8 result;
    for (int i = 0; i < kWidth; ++i) result[i] = static_cast<float>(from[i]);
    return result;
  }
}

template <class T>
EMU_INLINE void narrow(Float8 values, T* to) {
  if constexpr (kBuiltIn<T>) {
    using Narrow = Vector<T, kWidth>;
    store<T, kWidth>(__builtin_convertvector(values, Narrow), to);
  } else {
    for (int i = 0; i < kWidth; ++i) to[i] = static_cast<T>(values[i]);
  }
}

// sum + left[0..steps) * right, where right has `steps` rows of eight. Products of halves are
// exact in float; the sums are rounded to float.
template <int steps, class A, class B>
EMU_INLINE Float8 product(Float8 sum, const A* left, const B* right) {
  for (int i = 0; i < steps; ++i)
    sum += static_cast<float>(left[i]) * widen(right + i * kWidth);
  return sum;
}

template <class T, int N, size_t... i>
EMU_INLINE Vector<T, 2 * N> interleave(Vector<T, N> a, Vector<T, N> b,
                                       std::index_sequence<i...>) {
  return __builtin_shufflevector(a, b, (i % 2 * N + i / 2)...);
}
template <class T, int N>
EMU_INLINE Vector<T, 2 * N> interleave(Vector<T, N> a, Vector<T, N> b) {
  return interleave<T, N>(a, b, std::make_index_sequence<2 * N>());
}

// Eight columns, `stride` elements apart and `length` long, become `length` rows of eight.
// `Pointer` may have an address space.
template <int length, class T, class Pointer>
EMU_INLINE void transpose(Pointer from, size_t stride, T* to) {
  if constexpr (kBuiltIn<T>) {
    Vector<T, length> column[kWidth];
    for (int c = 0; c < kWidth; ++c) column[c] = load<length>((const T*)(from + c * stride));
    const auto even = interleave<T, 2 * length>(interleave<T, length>(column[0], column[4]),
                                                interleave<T, length>(column[2], column[6]));
    const auto odd = interleave<T, 2 * length>(interleave<T, length>(column[1], column[5]),
                                               interleave<T, length>(column[3], column[7]));
    store<T, 8 * length>(interleave<T, 4 * length>(even, odd), to);
  } else {
    for (int c = 0; c < kWidth; ++c)
      for (int i = 0; i < length; ++i) to[i * kWidth + c] = from[c * stride + i];
  }
}

// `count` neighbours.
template <int count, class T, class Pointer>
EMU_INLINE void copy(Pointer from, T* to) {
  if constexpr (kBuiltIn<T>) {
    store<T, count>(load<count>((const T*)from), to);
  } else {
    for (int i = 0; i < count; ++i) to[i] = from[i];
  }
}

}  // namespace tile
