/* A call: arguments are rebuilt as the library's own runtime would pass them. */
#define _GNU_SOURCE
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "guest.h"

enum { ALIGNMENT = 64 }; /* bytes: what the code may assume of a tensor */

/* As the runtime lays a tensor object out. */
struct tensor {
  TVMFFIObject header;
  DLTensor tensor;
  uint64_t inline_size;
};

static struct {
  TVMFFIAny* values;
  struct tensor* tensors;
  uint32_t count;
} arguments;

static void make_room(uint32_t count) {
  if (count <= arguments.count) return;
  arguments.values = realloc(arguments.values, count * sizeof *arguments.values);
  arguments.tensors = realloc(arguments.tensors, count * sizeof *arguments.tensors);
  if (!arguments.values || !arguments.tensors) die("out of memory");
  arguments.count = count;
}

/* Device memory lies at the same address in both processes. It is mapped as far as it is used. */
static void map_arena(uint64_t limit) {
  static uint64_t mapped;
  if (options.arena < 0) return;
  if (!mapped) mapped = options.arena_start;
  if (limit <= mapped) return;
  uint64_t step = UINT64_C(1) << 26; /* bytes: one call of mmap per 64 MiB */
  uint64_t size = (limit - mapped + step - 1) / step * step;
  void* got = mmap((void*)(uintptr_t)mapped, size, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE, options.arena,
                   (off_t)(mapped - options.arena_start));
  if (got != (void*)(uintptr_t)mapped) die("device memory can't be mapped");
  mapped += size;
}

static const char* read_tensor(const char* at, struct tensor* out) {
  const struct edgec_tensor* record = (const void*)at;
  const char* rest = at + sizeof *record;
  memset(out, 0, sizeof *out);
  out->header.combined_ref_count = UINT64_C(1) << 32 | 1;
  out->header.type_index = kTVMFFITensor;
  out->tensor.data = (void*)(uintptr_t)record->data;
  out->tensor.byte_offset = record->byte_offset;
  out->tensor.device.device_type = (DLDeviceType)record->device_type;
  out->tensor.device.device_id = record->device_id;
  out->tensor.ndim = record->ndim;
  out->tensor.dtype = (DLDataType){record->dtype_code, record->dtype_bits, record->dtype_lanes};
  out->tensor.shape = (int64_t*)rest;
  out->tensor.strides = (int64_t*)rest + record->ndim;
  rest += 2 * sizeof(int64_t) * (size_t)record->ndim;
  out->inline_size = record->inline_size;
  if (record->inline_size) {
    if (posix_memalign(&out->tensor.data, ALIGNMENT, record->inline_size)) die("out of memory");
    memcpy(out->tensor.data, rest, record->inline_size);
    rest += (record->inline_size + 7) / 8 * 8;
  }
  return rest;
}

static void read_arguments(const struct buffer* request, uint32_t count) {
  make_room(count);
  const char* at = request->data + sizeof(struct edgec_request_header);
  for (uint32_t i = 0; i < count; ++i) {
    const struct edgec_value* record = (const void*)at;
    TVMFFIAny* value = &arguments.values[i];
    at += sizeof *record;
    arguments.tensors[i].inline_size = 0;
    value->type_index = record->type_index;
    value->zero_padding = record->extra;
    value->v_uint64 = record->bits;
    if (record->type_index == kTVMFFITensor || record->type_index == kTVMFFIDLTensorPtr) {
      struct tensor* tensor = &arguments.tensors[i];
      at = read_tensor(at, tensor);
      value->v_ptr = record->type_index == kTVMFFITensor ? (void*)tensor : &tensor->tensor;
    }
  }
}

static void write_text(struct buffer* reply, const struct buffer* text) {
  uint64_t size = text->size;
  append(reply, &size, sizeof size);
  append(reply, text->data, text->size);
  pad(reply);
}

static void return_tensors(struct buffer* reply, uint32_t count, int succeeded) {
  for (uint32_t i = 0; i < count; ++i) {
    struct tensor* tensor = &arguments.tensors[i];
    if (!tensor->inline_size) continue;
    if (succeeded) {
      append(reply, tensor->tensor.data, tensor->inline_size);
      pad(reply);
    }
    free(tensor->tensor.data);
  }
}

void serve_call(const struct buffer* request, struct buffer* reply) {
  const struct edgec_request_header* call = (const void*)request->data;
  const uint32_t count = call->count;
  TVMFFIAny result;
  memset(&result, 0, sizeof result);
  map_arena(call->limit);
  read_arguments(request, count);
  begin_call();
  int code = function_at(call->function)(NULL, arguments.values, (int32_t)count, &result);

  struct edgec_reply_header header;
  memset(&header, 0, sizeof header);
  header.status = code ? EDGEC_RAISED : EDGEC_OK;
  header.launches = launches.count;
  header.value.type_index = result.type_index;
  header.value.extra = result.zero_padding;
  header.value.bits = result.v_uint64;
  append(reply, &header, sizeof header);
  if (code) {
    write_text(reply, &raised.kind);
    write_text(reply, &raised.message);
  } else {
    append(reply, launches.records.data, launches.records.size);
  }
  return_tensors(reply, count, !code);
}
