// What the code of one kernel sees of the engine that runs it on this CPU.
//
// A kernel is compiled to a shared object of its own, from one translation unit (C++20) which
// includes this header and ends with
//
//     EMU_KERNEL(name) {                       // `name` as in the device module's table
//       name(emu::argument<float*>(arguments, 0), emu::argument<int32_t>(arguments, 1));
//     }
//
// The braces are the body of ONE work-item. `arguments` is an array of 8-byte slots in the
// kernel's call order: an address, or a scalar in the low bytes of its slot in its own type
// (little endian). What a launch has more of than arguments (extents) comes from the functions
// below. The engine calls the body once per work-item; every wait switches to another fiber of the
// same work-group on the same thread.
//
// Names. A work-group is CUDA's block and Metal's threadgroup, a sub-group is a warp or simdgroup,
// a lane is a work-item's place in its sub-group. Sub-groups are consecutive in the linear local
// index x + size.x * (y + size.y * z).
//
// Threads. Several threads run work-groups of one launch at the same time, each with a copy of the
// shared object of its own. Plain static variables are therefore private to the thread that runs
// a work-group: never use thread_local.
//
// Shared memory. A static variable with EMU_SHARED is one per work-group and begins every
// work-group filled with 0xFF bytes, which read as NaN, so that what nobody wrote shows:
//     static EMU_SHARED half tile[1024];     // no initialiser; trivial types only
// `dynamic_shared()` is the launch's dynamic shared memory, filled the same way, 256-byte aligned.
//
// Waiting. All work-items of a work-group have to reach `barrier()`, or the launch ends with a
// fault; so it does when one returns while others wait. The collectives of a sub-group
// (`subgroup_barrier`, `shuffle`, `share`, `Exchange`) complete when each of its work-items waits
// in one, waits at a barrier, or has returned; those that wait in one took part. A kernel whose
// work-items never wait runs as a plain loop.
//
// The object is compiled without exceptions and linked with nothing but libc and libm, undefined
// symbols being errors; `-fvisibility=hidden` hides all but the kernels.
//
// Checked mode. EMU_CHECKED is defined and the text is compiled with -fsanitize=kernel-address
// (see the flags in the Python beside this). Then every load and store of the kernel's code is
// checked. A shim whose own helper functions touch memory that isn't the kernel's (a table of its
// own, a member of this header's state) marks them EMU_UNCHECKED. A lane may read and write
// through the pointer of a peer only where it owns the fragment's memory or inside the life of an
// `Exchange`; access to another work-item's stack is allowed there and a fault elsewhere.
// Atomic operations on memory that work-items share go through `emu::atomically(pointer, f)`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define EMU_INLINE inline __attribute__((always_inline))
#define EMU_HIDDEN __attribute__((visibility("hidden")))
#define EMU_SHARED __attribute__((section("emu_shared"), used))
#ifdef EMU_CHECKED
#define EMU_UNCHECKED __attribute__((no_sanitize("kernel-address"), noinline))
#else
#define EMU_UNCHECKED EMU_INLINE
#endif

namespace emu {

struct Dim {
  uint32_t x, y, z;
};

constexpr uint32_t kWidestSubgroup = 64;
constexpr uint32_t kSlotBytes = 64;

// What the lanes of a sub-group showed each other in one collective.
struct Shared {
  alignas(64) unsigned char slot[kWidestSubgroup][kSlotBytes];
  uint64_t participants;  // bit i: lane i took part
};

// One work-item.
struct Item {
  Dim local_id;
  uint32_t index;     // linear local index
  uint32_t lane;      // place in the sub-group
  uint32_t subgroup;  // number of the sub-group
};

// What the engine gives to the kernel's shared object.
struct Services {
  void (*barrier)(void* worker, uint32_t line);
  const Shared* (*share)(void* worker, const void* value, size_t size, bool orders);
  void (*open_stacks)(void* worker, bool open);
  void (*access)(void* worker, const void* address, size_t size, bool writes);
  void (*atomic)(void* worker, const void* address, size_t size);
  void (*trap)(void* worker, const char* reason);
};

struct State {
  const Item* item;
  void* worker;
  const Services* services;
  Dim group_id, grid_size, group_size;
  uint32_t subgroup_width;
  uint32_t dynamic_shared_size;  // bytes
  void* dynamic_shared;
};

// One per copy of the shared object; the engine keeps `item` at the work-item that runs.
#ifdef EMU_STATE_ELSEWHERE
extern EMU_HIDDEN State state;
#else
EMU_HIDDEN inline State state{};
#endif

struct Kernel {
  uint32_t version;
  State* state;
  void (*body)(const uint64_t* arguments);
  char* shared_begin;
  char* shared_end;
};
constexpr uint32_t kVersion = 2;

// In work-items of a work-group, and work-groups of the launch.
EMU_UNCHECKED Dim local_id() { return state.item->local_id; }
EMU_UNCHECKED Dim group_id() { return state.group_id; }
EMU_UNCHECKED Dim group_size() { return state.group_size; }
EMU_UNCHECKED Dim grid_size() { return state.grid_size; }
EMU_UNCHECKED uint32_t local_index() { return state.item->index; }
EMU_UNCHECKED uint32_t lane() { return state.item->lane; }
EMU_UNCHECKED uint32_t subgroup() { return state.item->subgroup; }
EMU_UNCHECKED uint32_t subgroup_width() { return state.subgroup_width; }
EMU_UNCHECKED void* dynamic_shared() { return state.dynamic_shared; }
EMU_UNCHECKED uint32_t dynamic_shared_size() { return state.dynamic_shared_size; }

// Ends the launch with a fault that says `reason`; for what a shim can't do.
[[noreturn]] EMU_UNCHECKED void trap(const char* reason) {
  state.services->trap(state.worker, reason);
  __builtin_unreachable();
}

// Waits for the whole work-group. In checked mode all work-items have to be at the same one: a shim
// whose function calls this passes on the line of its own caller, as a default argument.
__attribute__((convergent)) EMU_UNCHECKED void barrier(uint32_t line = __builtin_LINE()) {
  state.services->barrier(state.worker, line);
}

// Shows `size` <= 64 bytes to the sub-group and waits for it. The answer is valid until this
// work-item's next collective.
__attribute__((convergent)) EMU_UNCHECKED const Shared* share(const void* value, size_t size) {
  return state.services->share(state.worker, value, size, false);
}

// Waits for the sub-group and orders its accesses to memory, as no other collective does. A bit per
// lane that took part.
__attribute__((convergent)) EMU_UNCHECKED uint64_t subgroup_barrier() {
  return state.services->share(state.worker, nullptr, 0, true)->participants;
}

// A bit per lane that took part and gave true.
__attribute__((convergent)) EMU_UNCHECKED uint64_t ballot(bool value) {
  const Shared* all = share(&value, sizeof value);
  uint64_t votes = 0;
  for (uint32_t i = 0; i < kWidestSubgroup; ++i)
    votes |= uint64_t((all->participants >> i & 1) && all->slot[i][0]) << i;
  return votes;
}

// The value that lane `source` of the sub-group gave. A lane that doesn't exist or took no part
// gives 0xFF bytes: GPUs leave such values undefined, and NaN shows where they are used.
template <class T>
__attribute__((convergent)) EMU_UNCHECKED T shuffle(T value, uint32_t source) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= kSlotBytes);
  const Shared* all = share(&value, sizeof value);
  T result;
  if (source < kWidestSubgroup && (all->participants >> source & 1))
    __builtin_memcpy(&result, all->slot[source], sizeof result);
  else
    __builtin_memset(&result, 0xFF, sizeof result);
  return result;
}

// For matrix fragments that are spread over the lanes of a sub-group. The constructor publishes a
// pointer to this lane's fragment and waits; until the end of the object's life every lane may
// read (or each lane a part of its own: write) all fragments; the destructor waits again.
//     { emu::Exchange fragments(&mine); for (lane...) use(fragments.peer<Fragment>(lane)); }
// Results are written after the object's life, or into memory that no peer reads.
class Exchange {
 public:
  __attribute__((convergent)) EMU_UNCHECKED explicit Exchange(void* mine) {
    all_ = share(&mine, sizeof mine);
    for (uint32_t i = 0; i < kWidestSubgroup; ++i) {
      void* peer = nullptr;
      if (all_->participants >> i & 1) __builtin_memcpy(&peer, all_->slot[i], sizeof peer);
      peers_[i] = peer;
    }
    state.services->open_stacks(state.worker, true);
  }
  __attribute__((convergent)) EMU_UNCHECKED ~Exchange() {
    state.services->open_stacks(state.worker, false);
    share(nullptr, 0);
  }
  Exchange(const Exchange&) = delete;
  Exchange& operator=(const Exchange&) = delete;
  // Null if the lane took no part.
  template <class T>
  EMU_UNCHECKED T* peer(uint32_t lane) const {
    return static_cast<T*>(peers_[lane]);
  }

 private:
  const Shared* all_;
  void* peers_[kWidestSubgroup];
};

// Runs `f(*pointer)`, one atomic read-modify-write (such as a __atomic builtin on its address).
template <class T, class F>
EMU_UNCHECKED auto atomically(T* pointer, F f) {
  if (state.services->atomic) state.services->atomic(state.worker, pointer, sizeof(T));
  return f(pointer);
}

template <class T>
EMU_UNCHECKED T argument(const uint64_t* arguments, uint32_t index) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  T value;
  __builtin_memcpy(&value, &arguments[index], sizeof value);
  return value;
}

}  // namespace emu

extern "C" {
extern char __start_emu_shared[] __attribute__((weak, visibility("hidden")));
extern char __stop_emu_shared[] __attribute__((weak, visibility("hidden")));
}

#define EMU_KERNEL(NAME)                                                                      \
  static void emu_body_##NAME(const uint64_t* arguments);                                     \
  extern "C" __attribute__((visibility("default"), used)) const emu::Kernel emu_kernel = {    \
      emu::kVersion, &emu::state, emu_body_##NAME, __start_emu_shared, __stop_emu_shared};    \
  EMU_UNCHECKED_BODY static void emu_body_##NAME([[maybe_unused]] const uint64_t* arguments)

#ifdef EMU_CHECKED
#define EMU_UNCHECKED_BODY __attribute__((no_sanitize("kernel-address")))
// The compiler puts a call of one of these before every load and store.
#define EMU_CALLBACK extern "C" EMU_HIDDEN __attribute__((no_sanitize("kernel-address"), used))
#define EMU_ACCESS(NAME, SIZE, WRITES)                                         \
  EMU_CALLBACK inline void __asan_##NAME##_noabort(uintptr_t address) {        \
    emu::state.services->access(emu::state.worker, (const void*)address, SIZE, WRITES); \
  }
EMU_ACCESS(load1, 1, false)
EMU_ACCESS(load2, 2, false)
EMU_ACCESS(load4, 4, false)
EMU_ACCESS(load8, 8, false)
EMU_ACCESS(load16, 16, false)
EMU_ACCESS(store1, 1, true)
EMU_ACCESS(store2, 2, true)
EMU_ACCESS(store4, 4, true)
EMU_ACCESS(store8, 8, true)
EMU_ACCESS(store16, 16, true)
EMU_CALLBACK inline void __asan_loadN_noabort(uintptr_t address, size_t size) {
  emu::state.services->access(emu::state.worker, (const void*)address, size, false);
}
EMU_CALLBACK inline void __asan_storeN_noabort(uintptr_t address, size_t size) {
  emu::state.services->access(emu::state.worker, (const void*)address, size, true);
}
EMU_CALLBACK inline void __asan_handle_no_return() {}
EMU_CALLBACK inline void* __asan_memcpy(void* to, const void* from, size_t size) {
  emu::state.services->access(emu::state.worker, from, size, false);
  emu::state.services->access(emu::state.worker, to, size, true);
  return __builtin_memcpy(to, from, size);
}
EMU_CALLBACK inline void* __asan_memmove(void* to, const void* from, size_t size) {
  emu::state.services->access(emu::state.worker, from, size, false);
  emu::state.services->access(emu::state.worker, to, size, true);
  return __builtin_memmove(to, from, size);
}
EMU_CALLBACK inline void* __asan_memset(void* to, int value, size_t size) {
  emu::state.services->access(emu::state.worker, to, size, true);
  return __builtin_memset(to, value, size);
}
#else
#define EMU_UNCHECKED_BODY
#endif
