// What the threads of a block and the lanes of a warp do together.
#pragma once

__attribute__((convergent)) EMU_INLINE void __syncthreads() { emu::barrier(); }
// Work-items of a work-group run on one thread of this CPU.
EMU_INLINE void __threadfence_block() {}
EMU_INLINE void __threadfence() { __atomic_thread_fence(__ATOMIC_SEQ_CST); }

namespace shim {

constexpr unsigned kWarp = 32;

// `mask` names the caller, and each thread that it names takes part; otherwise CUDA leaves the
// result undefined. Lanes beyond the block's end may be named, as they are nowhere.
EMU_UNCHECKED void check_mask(unsigned mask, uint64_t participants) {
#ifdef EMU_CHECKED
  const emu::Dim size = emu::group_size();
  const unsigned left = size.x * size.y * size.z - emu::subgroup() * kWarp;
  const unsigned existing = left < kWarp ? (1u << left) - 1 : ~0u;
  if (!(mask >> emu::lane() & 1))
    emu::trap("the mask of a warp function doesn't name the lane that calls it");
  if (mask & existing & ~static_cast<unsigned>(participants))
    emu::trap("the mask of a warp function names lanes that don't take part in it");
#endif
}

// The value of lane `source` of the warp.
template <class T>
__attribute__((convergent)) EMU_UNCHECKED T exchange(unsigned mask, T value, unsigned source) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= emu::kSlotBytes);
  const emu::Shared* all = emu::share(&value, sizeof value);
  check_mask(mask, all->participants);
  T result;
  if (all->participants >> source & 1)
    __builtin_memcpy(&result, all->slot[source], sizeof result);
  else
    __builtin_memset(&result, 0xFF, sizeof result);
  return result;
}

// A warp falls into segments of `width` lanes, a power of two up to 32, that keep to themselves.
EMU_INLINE unsigned segment_start(int width) {
#ifdef EMU_CHECKED
  if (width < 1 || width > static_cast<int>(kWarp) || (width & (width - 1)) != 0)
    emu::trap("the width of a shuffle isn't a power of two up to 32");
#endif
  return emu::lane() & ~(static_cast<unsigned>(width) - 1);
}

}  // namespace shim

template <class T>
__attribute__((convergent)) EMU_INLINE T __shfl_sync(unsigned mask, T value, int source,
                                                     int width = 32) {
  const unsigned start = shim::segment_start(width);
  return shim::exchange(mask, value, start + (static_cast<unsigned>(source) & (width - 1)));
}
// Lanes whose peer would lie outside the segment keep their own value.
template <class T>
__attribute__((convergent)) EMU_INLINE T __shfl_down_sync(unsigned mask, T value, unsigned delta,
                                                          int width = 32) {
  const unsigned lane = emu::lane(), peer = lane + delta;
  const bool inside = peer < shim::segment_start(width) + width;
  return shim::exchange(mask, value, inside ? peer : lane);
}
template <class T>
__attribute__((convergent)) EMU_INLINE T __shfl_up_sync(unsigned mask, T value, unsigned delta,
                                                        int width = 32) {
  const unsigned lane = emu::lane();
  const bool inside = lane >= shim::segment_start(width) + delta;
  return shim::exchange(mask, value, inside ? lane - delta : lane);
}
// Earlier segments may be read, later ones not.
template <class T>
__attribute__((convergent)) EMU_INLINE T __shfl_xor_sync(unsigned mask, T value, int bits,
                                                         int width = 32) {
  const unsigned lane = emu::lane(), peer = lane ^ static_cast<unsigned>(bits);
  const bool inside = peer < shim::segment_start(width) + width;
  return shim::exchange(mask, value, inside ? peer : lane);
}

// The lanes that are here together: those of the warp that don't wait elsewhere.
__attribute__((convergent)) EMU_UNCHECKED unsigned __activemask() {
  return static_cast<unsigned>(emu::share(nullptr, 0)->participants);
}
__attribute__((convergent)) EMU_UNCHECKED void __syncwarp(unsigned mask = ~0u) {
  shim::check_mask(mask, emu::subgroup_barrier());
}
__attribute__((convergent)) EMU_UNCHECKED unsigned __ballot_sync(unsigned mask, int predicate) {
  const bool vote = predicate != 0;
  const emu::Shared* all = emu::share(&vote, sizeof vote);
  shim::check_mask(mask, all->participants);
  unsigned votes = 0;
  for (unsigned i = 0; i < shim::kWarp; ++i)
    votes |= static_cast<unsigned>((all->participants >> i & 1) && all->slot[i][0]) << i;
  return votes & mask;
}
__attribute__((convergent)) EMU_INLINE int __any_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, predicate) != 0;
}
__attribute__((convergent)) EMU_INLINE int __all_sync(unsigned mask, int predicate) {
  return __ballot_sync(mask, !predicate) == 0;
}
