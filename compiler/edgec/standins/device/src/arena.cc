#include "arena.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <iterator>
#include <new>
#include <stdexcept>
#include <string>

namespace edgec {
namespace {

// Far from where Linux puts programs, heaps and libraries on x86-64 and aarch64, and from the
// shadow memory of sanitizers; a 47-bit address, so that emulated processors reach it.
constexpr uint64_t kStart = UINT64_C(0x200000000000);
constexpr uint64_t kSize = UINT64_C(1) << 40;
constexpr uint64_t kUnit = 256;          // blocks are multiples of this, as on GPUs
constexpr uint64_t kPage = 1 << 16;      // at least the page size of every host
constexpr uint64_t kWorthReturning = 1 << 20;

uint64_t RoundUp(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

}  // namespace

Arena& Arena::Global() {
  // Never destroyed: tensors may be freed while the process ends.
  static Arena* arena = new Arena();
  return *arena;
}

Arena::Arena() : start_(kStart), limit_(kStart) {
  descriptor_ = memfd_create("edgec-device-memory", MFD_CLOEXEC);
  if (descriptor_ < 0 || ftruncate(descriptor_, static_cast<off_t>(kSize))) {
    throw std::runtime_error(std::string("no memory file: ") + std::strerror(errno));
  }
  void* got = mmap(reinterpret_cast<void*>(kStart), kSize, PROT_READ | PROT_WRITE,
                   MAP_SHARED | MAP_NORESERVE | MAP_FIXED_NOREPLACE, descriptor_, 0);
  if (got != reinterpret_cast<void*>(kStart)) {
    throw std::runtime_error(std::string("the address range of device memory isn't free: ") +
                             std::strerror(errno));
  }
  free_[kStart] = kSize;
}

void* Arena::Allocate(size_t size, size_t alignment, bool poison) {
  std::lock_guard<std::mutex> lock(mutex_);
  const uint64_t wanted = RoundUp(size ? size : 1, kUnit);
  const uint64_t unit = alignment > kUnit ? alignment : kUnit;
  for (auto place = free_.begin(); place != free_.end(); ++place) {
    const uint64_t begin = place->first, end = begin + place->second;
    const uint64_t address = RoundUp(begin, unit);
    if (address + wanted > end) continue;
    free_.erase(place);
    if (address > begin) free_[begin] = address - begin;
    if (end > address + wanted) free_[address + wanted] = end - address - wanted;
    blocks_[address] = wanted;
    used_ += wanted;
    if (address + wanted > limit_) limit_ = address + wanted;
    void* memory = reinterpret_cast<void*>(address);
    if (poison) std::memset(memory, 0xff, wanted);
    return memory;
  }
  throw std::bad_alloc();
}

void Arena::Free(void* memory) {
  std::lock_guard<std::mutex> lock(mutex_);
  const auto block = blocks_.find(reinterpret_cast<uint64_t>(memory));
  if (block == blocks_.end()) throw std::runtime_error("memory is freed that isn't allocated");
  uint64_t begin = block->first, end = begin + block->second;
  used_ -= block->second;
  if (block->second >= kWorthReturning) {
    const uint64_t first = RoundUp(begin, kPage), last = end / kPage * kPage;
    if (last > first) madvise(reinterpret_cast<void*>(first), last - first, MADV_REMOVE);
  }
  blocks_.erase(block);
  auto after = free_.lower_bound(begin);
  if (after != free_.end() && after->first == end) {
    end += after->second;
    after = free_.erase(after);
  }
  if (after != free_.begin()) {
    const auto before = std::prev(after);
    if (before->first + before->second == begin) {
      begin = before->first;
      free_.erase(before);
    }
  }
  free_[begin] = end - begin;
}

}  // namespace edgec
