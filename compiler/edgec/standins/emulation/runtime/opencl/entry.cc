// What every OpenCL kernel's shared object has besides the kernel: the engine's view of it.
// `emu_body` is a few lines of OpenCL C behind the kernel's text.
#include "emu.h"

extern "C" EMU_HIDDEN void emu_body(const uint64_t* arguments);
EMU_KERNEL(opencl) { emu_body(arguments); }
