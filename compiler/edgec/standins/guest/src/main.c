/* Runs the host code of a model library, one call at a time, for the process that verifies it.
 *
 * usage: guest SOCKET LIBRARY PREFIX DEVICE_TYPE TASKS ARENA ARENA_START
 *
 * What can't be served ends the process with a line on standard error.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guest.h"

void die(const char* format, ...) {
  va_list arguments;
  va_start(arguments, format);
  vfprintf(stderr, format, arguments);
  va_end(arguments);
  fputc('\n', stderr);
  exit(1);
}

void* append(struct buffer* buffer, const void* data, size_t size) {
  if (buffer->size + size > buffer->capacity) {
    size_t capacity = 2 * (buffer->size + size) + 4096;
    buffer->data = realloc(buffer->data, capacity);
    if (!buffer->data) die("out of memory");
    buffer->capacity = capacity;
  }
  char* at = buffer->data + buffer->size;
  if (data) memcpy(at, data, size);
  buffer->size += size;
  return at;
}

void pad(struct buffer* buffer) {
  static const char zeros[8];
  append(buffer, zeros, -buffer->size % 8);
}

void receive(struct buffer* request) {
  const size_t room = 1 << 16; /* most requests fit, and arrive with one read */
  size_t wanted = sizeof(struct edgec_request_header), got = 0;
  while (got < wanted) {
    request->size = got;
    append(request, NULL, wanted - got > room ? wanted - got : room);
    ssize_t more = read(options.socket, request->data + got, request->size - got);
    if (more < 0 && errno == EINTR) continue;
    if (more <= 0) exit(0); /* the verifying process is done */
    got += (size_t)more;
    if (got >= sizeof(struct edgec_request_header)) {
      wanted = ((const struct edgec_request_header*)(const void*)request->data)->size;
    }
  }
  request->size = got;
}

void send_all(const void* data, size_t size) {
  const char* at = data;
  while (size) {
    ssize_t sent = write(options.socket, at, size);
    if (sent < 0 && errno == EINTR) continue;
    if (sent <= 0) _exit(0);
    at += sent;
    size -= (size_t)sent;
  }
}

uint64_t ask_for_memory(uint64_t size) {
  struct edgec_reply_header want = {sizeof want, EDGEC_WANT_MEMORY, 0, 0, {0, 0, size}};
  struct buffer answer = {NULL, 0, 0};
  send_all(&want, sizeof want);
  receive(&answer);
  uint64_t address = ((const struct edgec_request_header*)(const void*)answer.data)->limit;
  free(answer.data);
  return address;
}

static void serve_resolve(const struct buffer* request, struct buffer* reply) {
  struct edgec_reply_header header;
  memset(&header, 0, sizeof header);
  header.value.bits =
      (uint64_t)resolve(request->data + sizeof(struct edgec_request_header));
  append(reply, &header, sizeof header);
}

int main(int count, char** values) {
  if (count != 8) die("usage: guest SOCKET LIBRARY PREFIX DEVICE_TYPE TASKS ARENA ARENA_START");
  options.socket = atoi(values[1]);
  options.device_type = atoi(values[4]);
  options.tasks = atoi(values[5]);
  options.arena = atoi(values[6]);
  options.arena_start = strtoull(values[7], NULL, 0);
  report_faults();
  end_with_owner();
  load_library(values[2], values[3]);
  struct buffer request = {NULL, 0, 0}, reply = {NULL, 0, 0};
  /* The first reply, which nobody asked for, says that the library is loaded. */
  struct edgec_reply_header ready = {sizeof ready, EDGEC_OK, 0, 0, {0, 0, 0}};
  send_all(&ready, sizeof ready);
  for (;;) {
    receive(&request);
    reply.size = 0;
    const struct edgec_request_header* header = (const void*)request.data;
    switch (header->kind) {
      case EDGEC_RESOLVE: serve_resolve(&request, &reply); break;
      case EDGEC_CALL: serve_call(&request, &reply); break;
      default: die("an unknown request %u", header->kind);
    }
    ((struct edgec_reply_header*)(void*)reply.data)->size = (uint32_t)reply.size;
    send_all(reply.data, reply.size);
  }
}
