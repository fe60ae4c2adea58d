// The functions that TVM's JavaScript calls besides those of its C interface, and the two that it
// offers.
#include <tvm/ffi/c_api.h>
#include <tvm/ffi/error.h>
#include <tvm/runtime/base.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#define IMPORTED(name) __attribute__((import_module("env"), import_name(#name)))

extern "C" {

// ---- Imported ----

// Calls a function of JavaScript; 0, or -1 with an error set.
IMPORTED(TVMFFIWasmSafeCall)
int TVMFFIWasmSafeCall(void* function, const TVMFFIAny* args, int32_t count, TVMFFIAny* result);

IMPORTED(TVMFFIWasmFunctionDeleter) void TVMFFIWasmFunctionDeleter(void* function);

// ---- Exported ----

// Memory for arguments and results, aligned to at least 8 bytes. JavaScript doesn't look whether
// there was any, and would write to address 0.
TVM_DLL void* TVMWasmAllocSpace(int32_t size) {
  void* memory = std::malloc(size > 0 ? static_cast<size_t>(size) : 1);
  if (memory == nullptr) std::abort();
  return memory;
}

TVM_DLL void TVMWasmFreeSpace(void* memory) { std::free(memory); }

// A function of TVM that calls a function of JavaScript; 0, or -1 with an error set.
TVM_DLL int TVMFFIWasmFunctionCreate(void* function, TVMFFIObjectHandle* out) {
  return TVMFFIFunctionCreate(function, TVMFFIWasmSafeCall, TVMFFIWasmFunctionDeleter, out);
}

// The message of the last call that failed; it stays until the next call of this function.
TVM_DLL const char* TVMFFIWasmGetLastError() {
  static std::string message;
  message = tvm::ffi::details::MoveFromSafeCallRaised().what();
  return message.c_str();
}

}  // extern "C"
