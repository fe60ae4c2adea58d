// What the threads of a threadgroup and the lanes of a simdgroup do together.
#pragma once

#include "tile.h"

namespace metal {

enum class mem_flags { mem_none = 0, mem_device = 1, mem_threadgroup = 2 };
constexpr mem_flags operator|(mem_flags a, mem_flags b) {
  return static_cast<mem_flags>(static_cast<int>(a) | static_cast<int>(b));
}

__attribute__((convergent)) EMU_INLINE void threadgroup_barrier(mem_flags) { emu::barrier(); }
__attribute__((convergent)) EMU_INLINE void simdgroup_barrier(mem_flags flags) {
  flags == mem_flags::mem_none ? (void)emu::share(nullptr, 0) : (void)emu::subgroup_barrier();
}

// TVM's reductions number the lane through the whole threadgroup. Apple doesn't define what a lane
// beyond the simdgroup gives; its GPUs take the number's low bits.
template <class T>
__attribute__((convergent)) EMU_INLINE T simd_shuffle(T value, ushort lane) {
  return emu::shuffle(value, lane % emu::subgroup_width());
}
template <class T>
__attribute__((convergent)) EMU_INLINE T simd_broadcast(T value, ushort lane) {
  return emu::shuffle(value, lane);
}
// Lanes whose peer would lie outside the simdgroup keep their own value.
template <class T>
__attribute__((convergent)) EMU_INLINE T simd_shuffle_down(T value, ushort delta) {
  const uint lane = emu::lane(), peer = lane + delta;
  return emu::shuffle(value, peer < emu::subgroup_width() ? peer : lane);
}
template <class T>
__attribute__((convergent)) EMU_INLINE T simd_shuffle_up(T value, ushort delta) {
  const uint lane = emu::lane();
  return emu::shuffle(value, lane < delta ? lane : lane - delta);
}
template <class T>
__attribute__((convergent)) EMU_INLINE T simd_shuffle_xor(T value, ushort mask) {
  return emu::shuffle(value, emu::lane() ^ mask);
}

// The functions below are for whole simdgroups. Nothing waits in them on this CPU, so it takes
// checked mode to notice lanes that went another way.
__attribute__((convergent)) EMU_INLINE void whole_simdgroup() {
#ifdef EMU_CHECKED
  const uint64_t all = ~uint64_t(0) >> (64 - emu::subgroup_width());
  if (emu::ballot(true) != all)
    emu::trap("not all lanes of a simdgroup take part in an operation on its matrices");
#endif
}

// A matrix that belongs to a simdgroup. Which lane holds which element is Metal's secret; here
// lane r < Rows computes row r, as that is one vector of this CPU, and the other lanes nothing.
// A matrix just loaded is in each of those lanes as a whole, so that products need no exchange
// between lanes. Of a result a lane has its own row, which is what it needs of a left factor; as
// a right factor a result has to be made whole first.
template <class T, int Columns, int Rows>
struct simdgroup_matrix {
  static_assert(Columns == 8 && Rows == 8, "Metal's simdgroup matrices are 8x8");
  T element[Rows][Columns];
  bool whole;
};
typedef simdgroup_matrix<half, 8, 8> simdgroup_half8x8;
typedef simdgroup_matrix<float, 8, 8> simdgroup_float8x8;

namespace detail {

constexpr uint kRows = tile::kWidth;

EMU_INLINE bool has_row() { return emu::lane() < kRows; }

template <class T>
__attribute__((convergent)) EMU_INLINE void complete(simdgroup_matrix<T, 8, 8>& matrix) {
  if (matrix.whole) return;
  struct Row {
    T element[kRows];
  } row;
  tile::copy<kRows>(matrix.element[emu::lane() % kRows], row.element);
  for (uint r = 0; r < kRows; ++r) {
    const Row theirs = emu::shuffle(row, r);
    tile::copy<kRows>(theirs.element, matrix.element[r]);
  }
  matrix.whole = true;
}

// `Pointer` keeps its address space.
template <class T, class Pointer>
__attribute__((convergent)) EMU_INLINE void load(simdgroup_matrix<T, 8, 8>& matrix, Pointer from,
                                                 ulong stride, ulong2 origin, bool transpose) {
  static_assert(kSpace<std::remove_pointer_t<Pointer>> == Space::kDevice ||
                    kSpace<std::remove_pointer_t<Pointer>> == Space::kThreadgroup,
                "a simdgroup matrix is loaded from device or threadgroup memory");
  whole_simdgroup();
  matrix.whole = true;
  if (!has_row()) return;
  const Pointer first = from + origin.y * stride + origin.x;
  if (transpose) {
    tile::transpose<kRows>(first, stride, matrix.element[0]);
  } else {
    for (uint r = 0; r < kRows; ++r) tile::copy<kRows>(first + r * stride, matrix.element[r]);
  }
}

template <class T, class Pointer>
__attribute__((convergent)) EMU_INLINE void store(const simdgroup_matrix<T, 8, 8>& matrix,
                                                  Pointer to, ulong stride, ulong2 origin,
                                                  bool transpose) {
  static_assert(kSpace<std::remove_pointer_t<Pointer>> == Space::kDevice ||
                    kSpace<std::remove_pointer_t<Pointer>> == Space::kThreadgroup,
                "a simdgroup matrix is stored to device or threadgroup memory");
  whole_simdgroup();
  if (!has_row()) return;
  const Pointer first = to + origin.y * stride + origin.x;
  const uint r = emu::lane();
  if (transpose) {
    for (uint c = 0; c < kRows; ++c) first[c * stride + r] = matrix.element[r][c];
  } else {
    tile::copy<kRows>(matrix.element[r], (T*)(first + r * stride));
  }
}

}  // namespace detail

template <class T, int Columns = 8, int Rows = 8>
EMU_INLINE simdgroup_matrix<T, Columns, Rows> make_filled_simdgroup_matrix(T value) {
  simdgroup_matrix<T, Columns, Rows> matrix;
  for (auto& row : matrix.element)
    for (T& element : row) element = value;
  matrix.whole = true;
  return matrix;
}

#define METAL_MATRIX_MEMORY(SPACE)                                                              \
  template <class T>                                                                            \
  __attribute__((convergent)) EMU_INLINE void simdgroup_load(                                   \
      simdgroup_matrix<T, 8, 8>& matrix, const SPACE T* from, ulong stride = 8,                 \
      ulong2 origin = ulong2(0), bool transpose = false) {                                      \
    detail::load(matrix, from, stride, origin, transpose);                                      \
  }                                                                                             \
  template <class T>                                                                            \
  __attribute__((convergent)) EMU_INLINE void simdgroup_store(                                  \
      const simdgroup_matrix<T, 8, 8>& matrix, SPACE T* to, ulong stride = 8,                   \
      ulong2 origin = ulong2(0), bool transpose = false) {                                      \
    detail::store(matrix, to, stride, origin, transpose);                                       \
  }
METAL_MATRIX_MEMORY(device)
METAL_MATRIX_MEMORY(threadgroup)
#undef METAL_MATRIX_MEMORY

// result = a * b + c. Apple documents no precision of the sum; here eight products are added in
// float to c and rounded once to the result's type.
template <class R, class A, class B, class C>
__attribute__((convergent)) EMU_INLINE void simdgroup_multiply_accumulate(
    simdgroup_matrix<R, 8, 8>& result, const simdgroup_matrix<A, 8, 8>& a,
    simdgroup_matrix<B, 8, 8>& b, const simdgroup_matrix<C, 8, 8>& c) {
  whole_simdgroup();
  detail::complete(b);
  if (detail::has_row()) {
    const uint r = emu::lane();
    const tile::Float8 sum = tile::product<detail::kRows>(tile::widen(c.element[r]), a.element[r],
                                                         b.element[0]);
    tile::narrow(sum, result.element[r]);
  }
  result.whole = false;
}

template <class R, class A, class B>
__attribute__((convergent)) EMU_INLINE void simdgroup_multiply(
    simdgroup_matrix<R, 8, 8>& result, const simdgroup_matrix<A, 8, 8>& a,
    simdgroup_matrix<B, 8, 8>& b) {
  simdgroup_multiply_accumulate(result, a, b, make_filled_simdgroup_matrix<R>(R(0)));
}

}  // namespace metal
