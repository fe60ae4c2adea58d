// What the C++ library of WASI leaves to others: exceptions, and destructors of threads' variables.
#ifndef __EMSCRIPTEN__

#include <stdio.h>
#include <stdlib.h>

#include <typeinfo>

extern "C" {

// The code is compiled so that nothing is caught: an exception ends the program. TVM prints its
// errors before it throws them; what the C++ library throws is named here.
void* __cxa_allocate_exception(size_t size) { return malloc(size); }

void __cxa_free_exception(void* exception) { free(exception); }

[[noreturn]] void __cxa_throw(void*, std::type_info* type, void (*)(void*)) {
  fprintf(stderr, "a C++ exception ends the program: %s\n", type->name());
  abort();
}

// The one thread never ends.
int __cxa_thread_atexit(void (*)(void*), void*, void*) { return 0; }

}  // extern "C"

#endif  // __EMSCRIPTEN__
