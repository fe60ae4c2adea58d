// Memory of a device that isn't there: one file in memory, mapped at the same address by this
// process and, where it may see it, by the guest that runs the library's host code.
#ifndef EDGEC_DEVICE_ARENA_H_
#define EDGEC_DEVICE_ARENA_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>

namespace edgec {

class Arena {
 public:
  static Arena& Global();

  // Memory for `size` bytes, at first NaNs if it is poisoned. Throws std::bad_alloc when the address
  // range is used up.
  void* Allocate(size_t size, size_t alignment, bool poison);
  void Free(void* memory);

  int descriptor() const { return descriptor_; }
  uint64_t start() const { return start_; }
  // End of the highest block that was ever allocated.
  uint64_t limit() const { return limit_; }
  // Bytes in blocks that are allocated.
  uint64_t used() const { return used_; }

 private:
  Arena();

  std::mutex mutex_;
  std::map<uint64_t, uint64_t> blocks_;  // address to size, allocated
  std::map<uint64_t, uint64_t> free_;    // address to size; neighbours are always merged
  int descriptor_;
  uint64_t start_;
  uint64_t limit_;
  uint64_t used_ = 0;
};

}  // namespace edgec

#endif
