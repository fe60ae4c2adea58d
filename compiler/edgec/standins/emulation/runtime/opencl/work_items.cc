// The part of OpenCL C's built-in functions that asks the engine. It is compiled to LLVM bitcode,
// so that it becomes part of the kernel's code.
#define EMU_STATE_ELSEWHERE
#include "emu.h"

#define BUILTIN extern "C" EMU_HIDDEN __attribute__((EMU_BUILTIN_ATTRIBUTES))
#ifdef EMU_CHECKED
#define EMU_BUILTIN_ATTRIBUTES noinline, no_sanitize("kernel-address")
#else
#define EMU_BUILTIN_ATTRIBUTES always_inline
#endif

static EMU_UNCHECKED uint64_t of(emu::Dim dim, uint32_t d, uint64_t otherwise) {
  return d == 0 ? dim.x : d == 1 ? dim.y : d == 2 ? dim.z : otherwise;
}

BUILTIN uint64_t emu_local_id(uint32_t d) { return of(emu::state.item->local_id, d, 0); }
BUILTIN uint64_t emu_group_id(uint32_t d) { return of(emu::state.group_id, d, 0); }
BUILTIN uint64_t emu_local_size(uint32_t d) { return of(emu::state.group_size, d, 1); }
BUILTIN uint64_t emu_num_groups(uint32_t d) { return of(emu::state.grid_size, d, 1); }
BUILTIN uint64_t emu_global_size(uint32_t d) { return emu_num_groups(d) * emu_local_size(d); }
BUILTIN uint64_t emu_global_id(uint32_t d) {
  return emu_group_id(d) * emu_local_size(d) + emu_local_id(d);
}
BUILTIN uint32_t emu_lane() { return emu::state.item->lane; }
BUILTIN uint32_t emu_subgroup() { return emu::state.item->subgroup; }
BUILTIN uint32_t emu_subgroup_size() { return emu::state.subgroup_width; }
BUILTIN uint32_t emu_subgroup_count() {
  emu::Dim size = emu::state.group_size;
  uint32_t width = emu::state.subgroup_width;
  return (size.x * size.y * size.z + width - 1) / width;
}
BUILTIN __attribute__((convergent)) void emu_barrier(uint32_t line) { emu::barrier(line); }
BUILTIN __attribute__((convergent)) void emu_subgroup_barrier() { emu::subgroup_barrier(); }
BUILTIN __attribute__((convergent)) uint64_t emu_shuffle(uint64_t value, uint32_t source) {
  return emu::shuffle(value, source);
}
BUILTIN void emu_atomic_access(uint64_t address, uint32_t size) {
  const auto& state = emu::state;
  if (state.services->atomic) state.services->atomic(state.worker, (const void*)address, size);
}
