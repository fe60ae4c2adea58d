// The system as the C library of WASI sees it: the calls that TVM's JavaScript offers, handed on, and
// all the others, which fail. Emscripten's C library has no part in this.
#ifndef __EMSCRIPTEN__

#include <stddef.h>
#include <stdint.h>

// What the C library of WASI calls its imports.
#define WASI(name) __imported_wasi_snapshot_preview1_##name
// The function of that name that JavaScript offers.
#define OFFERED(name) \
  __attribute__((import_module("wasi_snapshot_preview1"), import_name(#name))) int32_t js_##name

namespace {

constexpr int32_t kBadDescriptor = 8, kNoSuchFile = 44, kNoSuchCall = 52;  // WASI's error numbers

}  // namespace

extern "C" {

__attribute__((import_module("env"), import_name("emscripten_notify_memory_growth"))) void
emscripten_notify_memory_growth(int32_t memory);

OFFERED(clock_time_get)(int32_t, int64_t, int32_t);
OFFERED(environ_get)(int32_t, int32_t);
OFFERED(environ_sizes_get)(int32_t, int32_t);
OFFERED(fd_close)(int32_t);
OFFERED(fd_read)(int32_t, int32_t, int32_t, int32_t);
OFFERED(fd_seek)(int32_t, int64_t, int32_t, int32_t);
OFFERED(fd_write)(int32_t, int32_t, int32_t, int32_t);

}  // extern "C"

namespace {

// These calls read and write memory through views that JavaScript holds, and views end when the
// memory grows. Nobody says so to JavaScript: malloc just takes more memory. So it is said before
// the first call that follows.
void KeepViews() {
  static size_t known = 0;  // pages
  size_t pages = __builtin_wasm_memory_size(0);
  if (pages == known) return;
  known = pages;
  emscripten_notify_memory_growth(0);
}

}  // namespace

extern "C" {

int32_t WASI(clock_time_get)(int32_t clock, int64_t precision, int32_t time) {
  KeepViews();
  return js_clock_time_get(clock, precision, time);
}
int32_t WASI(environ_get)(int32_t pointers, int32_t text) {
  KeepViews();
  return js_environ_get(pointers, text);
}
int32_t WASI(environ_sizes_get)(int32_t count, int32_t bytes) {
  KeepViews();
  return js_environ_sizes_get(count, bytes);
}
int32_t WASI(fd_close)(int32_t file) { return js_fd_close(file); }
int32_t WASI(fd_read)(int32_t file, int32_t pieces, int32_t count, int32_t done) {
  KeepViews();
  return js_fd_read(file, pieces, count, done);
}
int32_t WASI(fd_seek)(int32_t file, int64_t offset, int32_t from, int32_t position) {
  KeepViews();
  return js_fd_seek(file, offset, from, position);
}
int32_t WASI(fd_write)(int32_t file, int32_t pieces, int32_t count, int32_t done) {
  KeepViews();
  return js_fd_write(file, pieces, count, done);
}

// Standard output and error are terminals, so that each line is handed on when it is complete.
int32_t WASI(fd_fdstat_get)(int32_t file, int32_t result) {
  constexpr uint8_t kCharacterDevice = 2;
  constexpr size_t kResultBytes = 24;
  if (file < 0 || file > 2) return kBadDescriptor;
  auto* bytes = reinterpret_cast<uint8_t*>(result);
  for (size_t i = 0; i < kResultBytes; ++i) bytes[i] = 0;
  bytes[0] = kCharacterDevice;
  return 0;
}

// ---- What there is not: arguments, files, sockets ----

#define FAILS(name, error, ...) \
  int32_t WASI(name)(__VA_ARGS__) { return error; }

FAILS(args_get, kNoSuchCall, int32_t, int32_t)
FAILS(args_sizes_get, kNoSuchCall, int32_t, int32_t)
FAILS(clock_res_get, kNoSuchCall, int32_t, int32_t)
FAILS(fd_advise, kBadDescriptor, int32_t, int64_t, int64_t, int32_t)
FAILS(fd_allocate, kBadDescriptor, int32_t, int64_t, int64_t)
FAILS(fd_datasync, kBadDescriptor, int32_t)
FAILS(fd_fdstat_set_flags, kBadDescriptor, int32_t, int32_t)
FAILS(fd_fdstat_set_rights, kBadDescriptor, int32_t, int64_t, int64_t)
FAILS(fd_filestat_get, kBadDescriptor, int32_t, int32_t)
FAILS(fd_filestat_set_size, kBadDescriptor, int32_t, int64_t)
FAILS(fd_filestat_set_times, kBadDescriptor, int32_t, int64_t, int64_t, int32_t)
FAILS(fd_pread, kBadDescriptor, int32_t, int32_t, int32_t, int64_t, int32_t)
FAILS(fd_prestat_dir_name, kBadDescriptor, int32_t, int32_t, int32_t)
FAILS(fd_prestat_get, kBadDescriptor, int32_t, int32_t)
FAILS(fd_pwrite, kBadDescriptor, int32_t, int32_t, int32_t, int64_t, int32_t)
FAILS(fd_readdir, kBadDescriptor, int32_t, int32_t, int32_t, int64_t, int32_t)
FAILS(fd_renumber, kBadDescriptor, int32_t, int32_t)
FAILS(fd_sync, kBadDescriptor, int32_t)
FAILS(fd_tell, kBadDescriptor, int32_t, int32_t)
FAILS(path_create_directory, kNoSuchFile, int32_t, int32_t, int32_t)
FAILS(path_filestat_get, kNoSuchFile, int32_t, int32_t, int32_t, int32_t, int32_t)
FAILS(path_filestat_set_times, kNoSuchFile, int32_t, int32_t, int32_t, int32_t, int64_t, int64_t,
      int32_t)
FAILS(path_link, kNoSuchFile, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t)
FAILS(path_open, kNoSuchFile, int32_t, int32_t, int32_t, int32_t, int32_t, int64_t, int64_t,
      int32_t, int32_t)
FAILS(path_readlink, kNoSuchFile, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t)
FAILS(path_remove_directory, kNoSuchFile, int32_t, int32_t, int32_t)
FAILS(path_rename, kNoSuchFile, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t)
FAILS(path_symlink, kNoSuchFile, int32_t, int32_t, int32_t, int32_t, int32_t)
FAILS(path_unlink_file, kNoSuchFile, int32_t, int32_t, int32_t)
FAILS(poll_oneoff, kNoSuchCall, int32_t, int32_t, int32_t, int32_t)
FAILS(random_get, kNoSuchCall, int32_t, int32_t)
FAILS(sched_yield, 0, )
FAILS(sock_accept, kBadDescriptor, int32_t, int32_t, int32_t)
FAILS(sock_recv, kBadDescriptor, int32_t, int32_t, int32_t, int32_t, int32_t, int32_t)
FAILS(sock_send, kBadDescriptor, int32_t, int32_t, int32_t, int32_t, int32_t)
FAILS(sock_shutdown, kBadDescriptor, int32_t, int32_t)

}  // extern "C"

#endif  // __EMSCRIPTEN__
