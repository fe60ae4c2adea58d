// Streams in memory.
#ifndef TVM_SUPPORT_BYTES_IO_H_
#define TVM_SUPPORT_BYTES_IO_H_

#include <tvm/ffi/string.h>
#include <tvm/support/io.h>

#include <cstring>
#include <string>

namespace tvm {
namespace support {

// Reads bytes that somebody else keeps.
class BytesInStream final : public Stream {
 public:
  explicit BytesInStream(const std::string& bytes) : BytesInStream(bytes.data(), bytes.size()) {}
  explicit BytesInStream(const ffi::Bytes& bytes) : BytesInStream(bytes.data(), bytes.size()) {}

  using Stream::Read;
  using Stream::Write;

  size_t Read(void* data, size_t size) override {
    size_t left = size_ - position_, taken = size < left ? size : left;
    if (taken != 0) std::memcpy(data, bytes_ + position_, taken);
    position_ += taken;
    return taken;
  }
  size_t Write(const void*, size_t) override { return 0; }

 private:
  BytesInStream(const char* bytes, size_t size) : bytes_(bytes), size_(size) {}

  const char* bytes_;
  size_t size_;
  size_t position_ = 0;
};

// Appends to a string.
class BytesOutStream final : public Stream {
 public:
  explicit BytesOutStream(std::string* bytes) : bytes_(bytes) {}

  using Stream::Read;
  using Stream::Write;

  size_t Read(void*, size_t) override { return 0; }
  size_t Write(const void* data, size_t size) override {
    bytes_->append(static_cast<const char*>(data), size);
    return size;
  }

 private:
  std::string* bytes_;
};

}  // namespace support
}  // namespace tvm

#endif  // TVM_SUPPORT_BYTES_IO_H_
