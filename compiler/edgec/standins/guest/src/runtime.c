/* The C interface that compiled host code calls: errors, kernels, parallel loops, workspace. */
#include <stdlib.h>
#include <string.h>
#include <tvm/ffi/extra/c_env_api.h>
#include <tvm/runtime/c_backend_api.h>

#include "guest.h"

struct options options;
struct raised raised;
struct launches launches;

void begin_call(void) {
  raised.kind.size = 0;
  raised.message.size = 0;
  launches.records.size = 0;
  launches.count = 0;
}

/* Errors ---------------------------------------------------------------------------------- */

void TVMFFIErrorSetRaisedFromCStrParts(const char* kind, const char** parts, int32_t count) {
  raised.kind.size = 0;
  raised.message.size = 0;
  append(&raised.kind, kind, strlen(kind));
  for (int32_t i = 0; i < count; ++i) {
    if (parts[i]) append(&raised.message, parts[i], strlen(parts[i]));
  }
}

void TVMFFIErrorSetRaisedFromCStr(const char* kind, const char* message) {
  TVMFFIErrorSetRaisedFromCStrParts(kind, &message, 1);
}

static int raise_error(const char* kind, const char* what, const char* name) {
  const char* parts[] = {what, name};
  TVMFFIErrorSetRaisedFromCStrParts(kind, parts, 2);
  return -1;
}

/* Kernels --------------------------------------------------------------------------------- */

/* As the runtime lays a function object out: code may call through the cell. */
struct function {
  TVMFFIObject header;
  TVMFFIFunctionCell cell;
  const char* name;
};

static int launch(void* self, const TVMFFIAny* args, int32_t count, TVMFFIAny* result) {
  const char* name = ((const struct function*)self)->name;
  struct edgec_launch record = {(uint32_t)strlen(name), (uint32_t)count};
  append(&launches.records, &record, sizeof record);
  append(&launches.records, name, record.name_size);
  pad(&launches.records);
  for (int32_t i = 0; i < count; ++i) {
    struct edgec_value value = {args[i].type_index, args[i].zero_padding, args[i].v_uint64};
    if (value.type_index >= kTVMFFIStaticObjectBegin || value.type_index == kTVMFFIDLTensorPtr ||
        value.type_index == kTVMFFIRawStr) {
      return raise_error("TypeError", "an argument that isn't a number or an address is given to ",
                         name);
    }
    append(&launches.records, &value, sizeof value);
  }
  launches.count++;
  memset(result, 0, sizeof *result);
  return 0;
}

static int set_device(void* self, const TVMFFIAny* args, int32_t count, TVMFFIAny* result) {
  (void)self;
  if (count != 2 || args[0].v_int64 != options.device_type || args[1].v_int64 != 0) {
    return raise_error("RuntimeError", "the host code selects another device than its own", "");
  }
  memset(result, 0, sizeof *result);
  return 0;
}

int TVMFFIEnvModLookupFromImports(TVMFFIObjectHandle context, const char* name,
                                  TVMFFIObjectHandle* out) {
  if (context != library_handle()) {
    return raise_error("RuntimeError", "another library's context is used to look up ", name);
  }
  struct function* made = calloc(1, sizeof *made);
  if (!made) die("out of memory");
  made->header.type_index = kTVMFFIFunction;
  made->header.combined_ref_count = UINT64_C(1) << 32 | 1;
  made->cell.safe_call = strcmp(name, "__tvm_set_device") ? launch : set_device;
  made->name = strdup(name);
  *out = made;
  return 0;
}

int TVMFFIFunctionCall(TVMFFIObjectHandle function, TVMFFIAny* args, int32_t count,
                       TVMFFIAny* result) {
  return ((struct function*)function)->cell.safe_call(function, args, count, result);
}

int TVMFFIHandleInitOnce(void** handle, int (*init)(void** result)) {
  void* made = NULL;
  if (*handle) return 0;
  if (init(&made)) return -1;
  *handle = made;
  return 0;
}

int TVMFFIHandleDeinitOnce(void** handle, int (*deinit)(void* handle)) {
  void* old = *handle;
  *handle = NULL;
  return old ? deinit(old) : 0;
}

/* What is counted lives as long as this process. */
int TVMFFIObjectIncRef(TVMFFIObjectHandle object) { return object ? 0 : -1; }
int TVMFFIObjectDecRef(TVMFFIObjectHandle object) { return object ? 0 : -1; }

/* Parallel loops -------------------------------------------------------------------------- */

int TVMBackendParallelLaunch(FTVMParallelLambda body, void* data, int tasks) {
  TVMParallelGroupEnv group = {NULL, tasks ? tasks : options.tasks};
  for (int task = 0; task < group.num_task; ++task) {
    int code = body(task, &group, data);
    if (code) return code;
  }
  return 0;
}

int TVMBackendParallelBarrier(int task, TVMParallelGroupEnv* group) {
  (void)task;
  if (group->num_task == 1) return 0;
  return raise_error("RuntimeError", "tasks run one after the other and can't wait for each other",
                     "");
}

/* Workspace ------------------------------------------------------------------------------- */

enum { ALIGNMENT = 64 }; /* bytes: what the code may assume of workspace */

void* TVMBackendAllocWorkspace(int device_type, int device_id, uint64_t size, int code, int bits) {
  (void)device_id, (void)code, (void)bits;
  if (device_type != kDLCPU) return (void*)(uintptr_t)ask_for_memory(size);
  void* memory = NULL;
  return posix_memalign(&memory, ALIGNMENT, size ? size : ALIGNMENT) ? NULL : memory;
}

int TVMBackendFreeWorkspace(int device_type, int device_id, void* memory) {
  (void)device_id;
  /* Launches run after the call returns: device memory is freed by the one who gave it. */
  if (device_type == kDLCPU) free(memory);
  return 0;
}

/* Symbols of a library that is linked into an app ----------------------------------------- */

static struct context_symbol* registered;
static size_t registered_count;

int TVMFFIEnvModRegisterSystemLibSymbol(const char* name, void* address) {
  registered = realloc(registered, (registered_count + 1) * sizeof *registered);
  if (!registered) die("out of memory");
  registered[registered_count++] = (struct context_symbol){name, address};
  return 0;
}

int has_registered_symbols(void) { return registered_count != 0; }

void* registered_symbol(const char* name) {
  for (size_t i = 0; i < registered_count; ++i) {
    if (!strcmp(registered[i].name, name)) return registered[i].address;
  }
  return NULL;
}

/* Those that the runtime registers when it starts. */
#define CONTEXT_SYMBOL(name) {"__" #name, (void*)(name)}
const struct context_symbol context_symbols[] = {
    CONTEXT_SYMBOL(TVMFFIFunctionCall),
    CONTEXT_SYMBOL(TVMFFIErrorSetRaisedFromCStr),
    CONTEXT_SYMBOL(TVMFFIHandleInitOnce),
    CONTEXT_SYMBOL(TVMFFIEnvModLookupFromImports),
    CONTEXT_SYMBOL(TVMBackendAllocWorkspace),
    CONTEXT_SYMBOL(TVMBackendFreeWorkspace),
    CONTEXT_SYMBOL(TVMBackendParallelLaunch),
    CONTEXT_SYMBOL(TVMBackendParallelBarrier),
    {NULL, NULL},
};

/* What LLVM calls on Darwin and Linux doesn't have ---------------------------------------- */

static void fill_pattern(char* out, const char* pattern, size_t width, size_t size) {
  for (size_t i = 0; i < size; ++i) out[i] = pattern[i % width];
}
void memset_pattern4(void* out, const void* pattern, size_t size) {
  fill_pattern(out, pattern, 4, size);
}
void memset_pattern8(void* out, const void* pattern, size_t size) {
  fill_pattern(out, pattern, 8, size);
}
void memset_pattern16(void* out, const void* pattern, size_t size) {
  fill_pattern(out, pattern, 16, size);
}
