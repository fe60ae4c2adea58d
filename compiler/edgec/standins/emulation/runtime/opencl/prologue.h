// Goes before each kernel's text.
#pragma once

// Barriers are told apart by their lines.
__attribute__((convergent)) void emu_barrier(uint line);
#define barrier(flags) emu_barrier(((void)(flags), __LINE__))

// The compiler knows these names for some devices only.
#define EMU_SHUFFLES(T)                                                                           \
  __attribute__((overloadable, convergent)) T sub_group_shuffle(T value, uint lane);              \
  __attribute__((overloadable, convergent)) T sub_group_shuffle_xor(T value, uint mask);          \
  __attribute__((overloadable, convergent)) T sub_group_shuffle_up(T value, uint delta);          \
  __attribute__((overloadable, convergent)) T sub_group_shuffle_down(T value, uint delta);        \
  __attribute__((overloadable, convergent)) T intel_sub_group_shuffle(T value, uint lane);
EMU_SHUFFLES(char) EMU_SHUFFLES(uchar) EMU_SHUFFLES(short) EMU_SHUFFLES(ushort)
EMU_SHUFFLES(int) EMU_SHUFFLES(uint) EMU_SHUFFLES(long) EMU_SHUFFLES(ulong) EMU_SHUFFLES(float)
#ifdef cl_khr_fp16
#pragma OPENCL EXTENSION cl_khr_fp16 : enable
EMU_SHUFFLES(half)
#pragma OPENCL EXTENSION cl_khr_fp16 : disable
#endif
#undef EMU_SHUFFLES
