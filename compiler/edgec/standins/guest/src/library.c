/* The library under test: found, prepared as the runtime prepares it, and its functions. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest.h"

static void* opened;
static uint64_t start, end; /* of its image in memory */
static TVMFFIObject handle; /* stands for the module that the library belongs to */
static TVMFFISafeCallType* functions;
static uint32_t function_count;

static void* find(const char* name) {
  /* What was registered for linking into an app is all that the runtime looks at there. */
  return has_registered_symbols() ? registered_symbol(name) : dlsym(opened, name);
}

static int note_extent(struct dl_phdr_info* info, size_t size, void* wanted) {
  (void)size;
  if (info->dlpi_addr != ((struct link_map*)wanted)->l_addr) return 0;
  start = info->dlpi_addr;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)* segment = &info->dlpi_phdr[i];
    uint64_t last = start + segment->p_vaddr + segment->p_memsz;
    if (segment->p_type == PT_LOAD && last > end) end = last;
  }
  return 1;
}

void load_library(const char* path, const char* prefix) {
  opened = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (!opened) die("%s", dlerror());
  struct link_map* map = NULL;
  if (dlinfo(opened, RTLD_DI_LINKMAP, &map)) die("%s", dlerror());
  dl_iterate_phdr(note_extent, map);
  for (const struct context_symbol* symbol = context_symbols; symbol->name; ++symbol) {
    void** variable = find(symbol->name);
    if (variable) *variable = symbol->address;
  }
  handle.type_index = kTVMFFIModule;
  char name[512];
  snprintf(name, sizeof name, "%s__tvm_ffi__library_ctx", prefix);
  void** context = find(name);
  if (context) *context = &handle;
}

void* library_handle(void) { return &handle; }

uint64_t library_offset(uint64_t instruction) {
  return instruction >= start && instruction < end ? instruction - start : UINT64_MAX;
}

int64_t resolve(const char* name) {
  void* function = find(name);
  if (!function) return -1;
  functions = realloc(functions, (function_count + 1) * sizeof *functions);
  if (!functions) die("out of memory");
  functions[function_count] = (TVMFFISafeCallType)function;
  return function_count++;
}

TVMFFISafeCallType function_at(uint32_t index) {
  if (index >= function_count) die("there is no function %u", index);
  return functions[index];
}
