// <mma.h>: nvcuda::wmma, matrices that belong to a warp.
//
// CUDA leaves open which lane holds which element. Here lane l owns eight neighbours in a row of
// the result and computes them; for that it keeps its row of the left matrix and its columns of
// the right one, so that a product needs no exchange between lanes. As on a GPU, elements are
// held by several lanes, and a function applied to every `x[i]` is applied to the whole matrix.
//
// Precision. Products of halves are exact in float. Sums of one mma_sync are made in float, then
// rounded once to the result's type: PTX promises "at least single precision" for float results
// and "at least half precision" for half ones.
#pragma once

#include "cuda_fp16.h"
#include "tile.h"

namespace nvcuda {
namespace wmma {

struct matrix_a;
struct matrix_b;
struct accumulator;
struct row_major;
struct col_major;
enum layout_t { mem_row_major, mem_col_major };

namespace detail {

constexpr unsigned kLanes = 32;
constexpr unsigned kOwn = tile::kWidth;  // elements of the result that a lane owns

template <class Layout>
constexpr layout_t kOrder =
    std::is_same_v<Layout, row_major> ? mem_row_major : mem_col_major;

// All lanes of the warp are here, as a function whose name ends in _sync demands. Nothing waits
// in these functions on this CPU, so it takes checked mode to notice lanes that went another way.
__attribute__((convergent)) EMU_UNCHECKED void whole_warp() {
#ifdef EMU_CHECKED
  if (emu::share(nullptr, 0)->participants != 0xFFFFFFFFu)
    emu::trap("not all lanes of a warp take part in a wmma function");
#endif
}

// 32 bytes for the matrix's start, 16 for each of its rows: what CUDA asks of pointer and `stride`.
template <class T>
EMU_UNCHECKED void check_alignment(const T* first, unsigned stride) {
#ifdef EMU_CHECKED
  if (reinterpret_cast<uintptr_t>(first) % 32 != 0)
    emu::trap("a wmma matrix in memory isn't aligned to 32 bytes");
  if (stride * sizeof(T) % 16 != 0)
    emu::trap("the stride of a wmma matrix isn't a multiple of 16 bytes");
#endif
}

}  // namespace detail

template <class Use, int m, int n, int k, class T, class Layout = void>
struct fragment;

// The lane's row of the left matrix.
template <int m, int n, int k, class T, class Layout>
struct fragment<matrix_a, m, n, k, T, Layout> {
  static constexpr int num_elements = k;
  using element_type = T;
  T x[num_elements];
};

// The lane's columns of the right matrix: eight for every step along k.
template <int m, int n, int k, class T, class Layout>
struct fragment<matrix_b, m, n, k, T, Layout> {
  static constexpr int num_elements = k * detail::kOwn;
  using element_type = T;
  T x[num_elements];
};

template <int m, int n, int k, class T>
struct fragment<accumulator, m, n, k, T> {
  static_assert((m == 16 && n == 16) || (m == 32 && n == 8) || (m == 8 && n == 32));
  static constexpr int num_elements = detail::kOwn;
  using element_type = T;
  T x[num_elements];
  EMU_INLINE static unsigned row() { return emu::lane() * detail::kOwn / n; }
  EMU_INLINE static unsigned column() { return emu::lane() * detail::kOwn % n; }
};

template <class Use, int m, int n, int k, class T, class Layout>
EMU_INLINE void fill_fragment(fragment<Use, m, n, k, T, Layout>& matrix,
                              const std::type_identity_t<T>& value) {
  for (T& element : matrix.x) element = value;
}

template <int m, int n, int k, class T, class Layout>
__attribute__((convergent)) EMU_INLINE void load_matrix_sync(
    fragment<matrix_a, m, n, k, T, Layout>& matrix, const T* first, unsigned stride) {
  detail::whole_warp();
  detail::check_alignment(first, stride);
  const unsigned row = fragment<accumulator, m, n, k, float>::row();
  if constexpr (detail::kOrder<Layout> == mem_row_major)
    tile::copy<k>(first + row * stride, matrix.x);
  else
    for (unsigned i = 0; i < k; ++i) matrix.x[i] = first[i * stride + row];
}

template <int m, int n, int k, class T, class Layout>
__attribute__((convergent)) EMU_INLINE void load_matrix_sync(
    fragment<matrix_b, m, n, k, T, Layout>& matrix, const T* first, unsigned stride) {
  detail::whole_warp();
  detail::check_alignment(first, stride);
  constexpr unsigned own = detail::kOwn;
  const unsigned column = fragment<accumulator, m, n, k, float>::column();
  if constexpr (detail::kOrder<Layout> == mem_row_major) {
    for (unsigned i = 0; i < k; ++i)
      tile::copy<own>(first + i * stride + column, matrix.x + i * own);
  } else {
    tile::transpose<k>(first + column * stride, stride, matrix.x);
  }
}

template <int m, int n, int k, class T>
__attribute__((convergent)) EMU_INLINE void load_matrix_sync(
    fragment<accumulator, m, n, k, T>& matrix, const T* first, unsigned stride, layout_t layout) {
  detail::whole_warp();
  detail::check_alignment(first, stride);
  const unsigned row = matrix.row(), column = matrix.column();
  if (layout == mem_row_major) {
    tile::copy<detail::kOwn>(first + row * stride + column, matrix.x);
  } else {
    for (unsigned j = 0; j < detail::kOwn; ++j) matrix.x[j] = first[(column + j) * stride + row];
  }
}

template <int m, int n, int k, class T>
__attribute__((convergent)) EMU_INLINE void store_matrix_sync(
    T* first, const fragment<accumulator, m, n, k, T>& matrix, unsigned stride, layout_t layout) {
  detail::whole_warp();
  detail::check_alignment(first, stride);
  const unsigned row = matrix.row(), column = matrix.column();
  if (layout == mem_row_major) {
    tile::copy<detail::kOwn>(matrix.x, first + row * stride + column);
  } else {
    for (unsigned j = 0; j < detail::kOwn; ++j) first[(column + j) * stride + row] = matrix.x[j];
  }
}

// result = a * b + c
template <int m, int n, int k, class T, class LayoutA, class LayoutB, class R, class C>
__attribute__((convergent)) EMU_INLINE void mma_sync(
    fragment<accumulator, m, n, k, R>& result, const fragment<matrix_a, m, n, k, T, LayoutA>& a,
    const fragment<matrix_b, m, n, k, T, LayoutB>& b, const fragment<accumulator, m, n, k, C>& c) {
  detail::whole_warp();
  tile::narrow(tile::product<k>(tile::widen(c.x), a.x, b.x), result.x);
}

}  // namespace wmma
}  // namespace nvcuda
