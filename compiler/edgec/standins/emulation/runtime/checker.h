// Checked mode: is each access inside the kernel's memory, and ordered with all others?
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "engine.h"

namespace emu {

// When a piece of memory was last written and read.
//
// An interval is the time between two barriers of one work-group; intervals are numbered through
// all work-groups and launches, which run one after the other, so that old notes need no clearing:
// a number below the first of a launch means "never". Within an interval, the barriers of a
// sub-group order its own work-items: its steps are counted.
//
// Several work-items may write the same bytes to one place with nothing that orders them: kernels
// let each work-item store what all of them have computed. That harms none of them, whoever is
// last; but whoever else reads the place may come before all of them, so who wrote is noted.
struct Cell {
  uint32_t write_interval, write_step;  // of the last write
  uint32_t read_interval, read_step;
  uint32_t earlier_read;  // interval of the last read by a work-group before the one that reads
  uint32_t writers;       // number of the set of those that wrote in this interval, if several
  uint16_t writer, reader;
  uint8_t atomic_write : 1;
  uint8_t writers_in_one : 1;  // all of the several are in one sub-group
  uint8_t many_readers : 1;    // in this interval; `reader` is the first
  uint8_t readers_in_one : 1;  // all of the many are in the reader's sub-group
  uint8_t read_before : 1;     // a read saw what was there before this interval
  uint8_t read_outer : 1;      // a read saw what was there before its work-group wrote
};

// The cells of 4 KiB. A cell stands for 4 bytes until something smaller is accessed.
struct Page {
  static constexpr uint32_t kBytes = 4096;
  uint32_t shift = 2;
  std::unique_ptr<Cell[]> cells;
  void refine(uint32_t shift);
};

class Checker {
 public:
  // Copies the buffers apart from each other, so that what lies behind one belongs to none, and
  // puts the copies' addresses in `arguments`.
  bool begin(const Launch& launch, const Kernel& kernel, std::vector<uint64_t>& arguments);
  // Copies back what was written.
  void end();

  void local_memory(const void* fixed, size_t fixed_size, const void* dynamic, size_t dynamic_size);
  void begin_group(uint64_t number);
  void next_interval();
  void subgroup_step(uint32_t subgroup) { ++steps_[subgroup]; }
  void access(Worker& worker, const void* address, size_t size, bool writes, bool atomic);
  // Decides whether a write that nothing orders changed anything. Called before the work-item that
  // made it does anything else that others could see.
  void settle() {
    if (pending_size_) settle_now();
  }
  ~Checker();

 private:
  struct Region {
    uintptr_t begin, end;
    Place place;
    bool read_only;
    bool written;
    uint64_t original;  // address that was copied from
    std::vector<Buffer> buffers;
    std::vector<uint32_t> pages;  // by offset / Page::kBytes; number + 1, or 0
  };
  void settle_now();
  Region* find(uintptr_t address);
  Page& page(Region& region, size_t offset);
  void describe(const Region& region, uintptr_t address, Fault& fault) const;
  void nearest(uintptr_t address, Fault& fault) const;
  void refine(Page& page, uint32_t shift);
  bool ordered(uint32_t item, uint32_t step) const;
  bool after_writes(const Cell& cell) const;
  bool has_written(const Cell& cell) const;
  void add_writer(Cell& cell);
  Party party_of(uint32_t interval, uint32_t item, bool writes) const;
  Fault fault_of(FaultKind kind, const Region* region, uintptr_t address, size_t size, bool writes,
                 const Party* other) const;
  [[noreturn]] void fail(FaultKind kind, const Region* region, uintptr_t address, size_t size,
                         bool writes, const Party* other = nullptr) const;
  // What an access is to an earlier one, by `other`, that nothing orders with it.
  enum class Conflict { kNone, kUnlessEqual, kRace };
  Conflict check_read(const Cell& cell, Party& other) const;
  Conflict check_write(const Cell& cell, Party& other, bool atomic) const;
  void note_read(Cell& cell);
  void note_write(Cell& cell, bool atomic);
  void find_image(const Kernel& kernel);

  Worker* worker_ = nullptr;
  std::vector<Region> regions_;
  Region* last_ = nullptr;
  uintptr_t image_begin_ = 0, image_end_ = 0;
  char* memory_ = nullptr;
  size_t memory_size_ = 0;
  std::vector<Page> pages_;
  uint32_t used_pages_ = 0;
  std::vector<uint32_t> steps_;     // by sub-group
  std::vector<uint64_t> writers_;   // sets of work-items, `set_words_` each, of this interval
  size_t set_words_ = 1;
  uint32_t width_ = 1;
  uint32_t interval_ = 0, launch_start_ = 1, group_start_ = 1;
  uint64_t group_ = 0;
  Dim grid_{};
  struct GroupStart {
    uint32_t interval;
    uint64_t group;
  };
  std::vector<GroupStart> starts_;
  // The accessing work-item.
  uint32_t item_ = 0, subgroup_ = 0, step_ = 0;
  uint32_t since_ = 1;  // the first interval that counts for what it accesses

  static constexpr size_t kMostPending = 512;
  size_t pending_size_ = 0;
  uintptr_t pending_address_ = 0;
  Fault pending_fault_{};
  unsigned char pending_bytes_[kMostPending];
};

}  // namespace emu
