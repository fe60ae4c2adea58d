/* The parts of the guest: the library it serves, messages, and the runtime that host code calls. */
#ifndef EDGEC_GUEST_H_
#define EDGEC_GUEST_H_

#include <stddef.h>
#include <stdint.h>
#include <tvm/ffi/c_api.h>

#include "protocol.h"

/* A growing run of bytes; its start moves when it grows. */
struct buffer {
  char* data;
  size_t size;
  size_t capacity;
};

void die(const char* format, ...) __attribute__((noreturn, format(printf, 1, 2)));
void* append(struct buffer* buffer, const void* data, size_t size);
void pad(struct buffer* buffer);

/* messages.c */
void receive(struct buffer* request);
void send_all(const void* data, size_t size);
uint64_t ask_for_memory(uint64_t size);

/* library.c */
void load_library(const char* path, const char* prefix);
int64_t resolve(const char* name); /* -1 if there is no such function */
TVMFFISafeCallType function_at(uint32_t index);
void* library_handle(void);
uint64_t library_offset(uint64_t instruction);

/* calls.c */
void serve_call(const struct buffer* request, struct buffer* reply);

/* faults.c */
void report_faults(void);
void end_with_owner(void);

/* runtime.c: state of the call that runs. */
extern struct options {
  int socket;
  int device_type; /* of the library's tensors, as in DLPack */
  int tasks;       /* into which a parallel loop is divided */
  int arena;       /* descriptor of the device memory, -1 if this process must not see it */
  uint64_t arena_start;
} options;

extern struct raised {
  struct buffer kind;
  struct buffer message;
} raised;

extern struct launches {
  struct buffer records;
  uint32_t count;
} launches;

void begin_call(void);

/* A function of the C interface that a library reaches through a variable of its own. */
struct context_symbol {
  const char* name;
  void* address;
};
extern const struct context_symbol context_symbols[];
int has_registered_symbols(void);
void* registered_symbol(const char* name);

#endif
