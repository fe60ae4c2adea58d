// Base64 (RFC 4648) on top of another stream: how JSON holds a tensor.
#ifndef TVM_SUPPORT_BASE64_H_
#define TVM_SUPPORT_BASE64_H_

#include <tvm/support/io.h>

#include <cstdint>

namespace tvm {
namespace support {

namespace base64 {

constexpr char kDigits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

// The value of a digit; -1 for anything else, padding included.
inline int Value(char digit) {
  for (int value = 0; value < 64; ++value) {
    if (kDigits[value] == digit) return value;
  }
  return -1;
}

}  // namespace base64

class Base64OutStream final : public Stream {
 public:
  explicit Base64OutStream(Stream* out) : out_(out) {}

  using Stream::Read;
  using Stream::Write;

  size_t Read(void*, size_t) override { return 0; }
  size_t Write(const void* data, size_t size) override {
    for (size_t i = 0; i < size; ++i) {
      group_ = group_ << 8 | static_cast<const uint8_t*>(data)[i];
      if (++bytes_ == 3) Flush();
    }
    return size;
  }

  // Writes what is left, padded; nothing may be written after that.
  void Finish() {
    if (bytes_ != 0) Flush();
  }

 private:
  void Flush() {
    uint32_t padded = group_ << 8 * (3 - bytes_);
    char digits[4];
    for (int i = 0; i < 4; ++i) {
      digits[i] = i <= bytes_ ? base64::kDigits[padded >> (18 - 6 * i) & 63] : '=';
    }
    out_->Write(digits, sizeof(digits));
    group_ = 0;
    bytes_ = 0;
  }

  Stream* out_;
  uint32_t group_ = 0;
  int bytes_ = 0;
};

class Base64InStream final : public Stream {
 public:
  explicit Base64InStream(Stream* in) : in_(in) {}

  using Stream::Read;
  using Stream::Write;

  // Starts to read; white space is left out wherever it stands.
  void InitPosition() { group_ = 0, bits_ = 0; }

  size_t Read(void* data, size_t size) override {
    size_t done = 0;
    char digit;
    while (done < size && in_->Read(&digit, 1) == 1) {
      int value = base64::Value(digit);
      if (value < 0) continue;
      group_ = group_ << 6 | static_cast<uint32_t>(value);
      bits_ += 6;
      if (bits_ < 8) continue;
      bits_ -= 8;
      static_cast<uint8_t*>(data)[done++] = static_cast<uint8_t>(group_ >> bits_);
    }
    return done;
  }
  size_t Write(const void*, size_t) override { return 0; }

 private:
  Stream* in_;
  uint32_t group_ = 0;
  int bits_ = 0;
};

}  // namespace support
}  // namespace tvm

#endif  // TVM_SUPPORT_BASE64_H_
