// Switching between stacks: what a work-item needs to wait in the middle of its code.
#pragma once

#include <cstdint>

// Saves the callee-saved registers on the stack, stores the stack pointer in *save, and goes on
// where the stack pointer `load` was saved. The system's ucontext does the same with system calls
// for signal masks, which costs more than a short kernel.
extern "C" void emu_switch(void** save, void* load);

// Where a new stack begins: calls the function in one saved register with the other as argument.
extern "C" void emu_start();

namespace emu {

#if defined(__x86_64__)
constexpr int kSavedWords = 6;
constexpr int kArgumentWord = 3;  // r12
constexpr int kFunctionWord = 2;  // r13
constexpr int kFrameWords = 7;    // saved registers and return address
constexpr int kReturnWord = kSavedWords;
#elif defined(__aarch64__)
constexpr int kSavedWords = 20;
constexpr int kArgumentWord = 0;  // x19
constexpr int kFunctionWord = 1;  // x20
constexpr int kFrameWords = kSavedWords;
constexpr int kReturnWord = 11;  // x30
#else
#error "switching stacks is written for x86-64 and AArch64"
#endif

// The stack pointer to give to emu_switch so that `function(argument)` runs on a new stack. The
// function must not return. `top` is aligned to 16 bytes.
inline void* new_fiber(char* top, void (*function)(void*), void* argument) {
  auto** frame = reinterpret_cast<void**>(top) - kFrameWords;
  for (int i = 0; i < kFrameWords; ++i) frame[i] = nullptr;
  frame[kArgumentWord] = argument;
  frame[kFunctionWord] = reinterpret_cast<void*>(function);
  frame[kReturnWord] = reinterpret_cast<void*>(emu_start);
  return frame;
}

}  // namespace emu
