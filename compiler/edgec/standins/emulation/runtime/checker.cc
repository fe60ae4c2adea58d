#include "checker.h"

#include <link.h>
#include <sys/mman.h>

#include <algorithm>
#include <cstring>

namespace emu {
namespace {

// Between two copies, and around them: an index that is wrong by less is told from a good one.
constexpr size_t kGap = 1 << 20;
constexpr size_t kPageMask = 4095;
// The numbers of intervals begin anew before they run out.
constexpr uint32_t kMostIntervals = 3u << 30;
constexpr uint32_t kBits = 64;

}  // namespace

void Page::refine(uint32_t finer) {
  uint32_t count = kBytes >> finer;
  auto fresh = std::make_unique<Cell[]>(count);
  for (uint32_t i = 0; i < count; ++i) fresh[i] = cells[i >> (shift - finer)];
  cells = std::move(fresh);
  shift = finer;
}

Checker::~Checker() {
  if (memory_) munmap(memory_, memory_size_);
}

bool Checker::begin(const Launch& launch, const Kernel& kernel, std::vector<uint64_t>& arguments) {
  if (interval_ > kMostIntervals) {
    interval_ = 0;
    pages_.clear();
  }
  launch_start_ = interval_ + 1;
  starts_.clear();
  regions_.clear();
  last_ = nullptr;
  used_pages_ = 0;
  pending_size_ = 0;
  width_ = launch.subgroup_width;
  grid_ = launch.grid;
  uint32_t items = launch.group.x * launch.group.y * launch.group.z;
  steps_.assign((items + width_ - 1) / width_, 0);
  set_words_ = (items + kBits - 1) / kBits;
  writers_.clear();
  find_image(kernel);

  std::vector<Buffer> buffers(launch.buffers, launch.buffers + launch.buffer_count);
  std::sort(buffers.begin(), buffers.end(),
            [](const Buffer& a, const Buffer& b) { return a.address < b.address; });
  for (const Buffer& buffer : buffers) {
    // Buffers that overlap are one piece of memory, as they are for the kernel.
    bool joins = !regions_.empty() && buffer.address < regions_.back().end;
    if (!buffer.size) continue;
    if (!joins) {
      Region region{};
      region.begin = buffer.address;
      region.end = buffer.address + buffer.size;
      region.original = buffer.address;
      region.place = Place(buffer.argument);
      region.read_only = true;
      regions_.push_back(std::move(region));
    }
    Region& region = regions_.back();
    region.end = std::max<uintptr_t>(region.end, buffer.address + buffer.size);
    region.read_only &= buffer.read_only != 0;
    region.buffers.push_back(buffer);
  }

  size_t needed = kGap;
  for (Region& region : regions_) {
    // The same place in a page, so that alignment is what it was.
    size_t start = needed + (region.original & kPageMask);
    size_t size = region.end - region.begin;
    region.begin = start;
    region.end = start + size;
    needed = ((start + size + kPageMask) & ~kPageMask) + kGap;
  }
  if (needed > memory_size_) {
    if (memory_) munmap(memory_, memory_size_);
    void* memory = mmap(nullptr, needed, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    memory_ = memory == MAP_FAILED ? nullptr : static_cast<char*>(memory);
    memory_size_ = memory_ ? needed : 0;
    if (!memory_) return false;
  }
  for (Region& region : regions_) {
    auto* start = memory_ + region.begin;
    size_t size = region.end - region.begin;
    memcpy(start, reinterpret_cast<const void*>(region.original), size);
    region.begin = reinterpret_cast<uintptr_t>(start);
    region.end = region.begin + size;
    region.pages.assign((size + (region.begin & kPageMask)) / Page::kBytes + 1, 0);
    for (Buffer& buffer : region.buffers)
      arguments[buffer.argument] = region.begin + (buffer.address - region.original);
  }
  return true;
}

void Checker::end() {
  for (Region& region : regions_)
    if (region.original && region.written)
      memcpy(reinterpret_cast<void*>(region.original),
             reinterpret_cast<const void*>(region.begin), region.end - region.begin);
}

void Checker::local_memory(const void* fixed, size_t fixed_size, const void* dynamic,
                           size_t dynamic_size) {
  auto add = [this](const void* address, size_t size, Place place) {
    if (!size) return;
    Region region{};
    region.begin = reinterpret_cast<uintptr_t>(address);
    region.end = region.begin + size;
    region.place = place;
    region.pages.assign((size + (region.begin & kPageMask)) / Page::kBytes + 1, 0);
    regions_.push_back(std::move(region));
  };
  add(fixed, fixed_size, Place::kLocal);
  add(dynamic, dynamic_size, Place::kDynamic);
  last_ = nullptr;
}

// The kernel's own shared object, whose constants it may read.
void Checker::find_image(const Kernel& kernel) {
  auto body = reinterpret_cast<uintptr_t>(kernel.body);
  struct Search {
    uintptr_t body, begin, end;
  } search{body, 0, 0};
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* data) {
        auto& search = *static_cast<Search*>(data);
        uintptr_t begin = UINTPTR_MAX, end = 0;
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const auto& segment = info->dlpi_phdr[i];
          if (segment.p_type != PT_LOAD) continue;
          uintptr_t start = info->dlpi_addr + segment.p_vaddr;
          begin = std::min(begin, start);
          end = std::max(end, start + uintptr_t(segment.p_memsz));
        }
        if (search.body < begin || search.body >= end) return 0;
        search.begin = begin;
        search.end = end;
        return 1;
      },
      &search);
  image_begin_ = search.begin;
  image_end_ = search.end;
}

void Checker::begin_group(uint64_t number) {
  group_ = number;
  next_interval();
  group_start_ = interval_;
  starts_.push_back({interval_, number});
}

void Checker::next_interval() {
  ++interval_;
  std::fill(steps_.begin(), steps_.end(), 0);
  writers_.clear();
}

Checker::Region* Checker::find(uintptr_t address) {
  if (last_ && address >= last_->begin && address < last_->end) return last_;
  for (Region& region : regions_)
    if (address >= region.begin && address < region.end) return last_ = &region;
  return nullptr;
}

Page& Checker::page(Region& region, size_t offset) {
  uint32_t& number = region.pages[offset / Page::kBytes];
  if (!number) {
    if (used_pages_ == pages_.size()) {
      pages_.emplace_back();
      pages_.back().cells = std::make_unique<Cell[]>(Page::kBytes >> pages_.back().shift);
    }
    number = ++used_pages_;
  }
  return pages_[number - 1];
}

// What a fault says of a place in a region: the innermost buffer that holds it.
void Checker::describe(const Region& region, uintptr_t address, Fault& fault) const {
  fault.address = address;
  fault.place = int32_t(region.place);
  fault.offset = int64_t(address - region.begin);
  fault.extent = region.end - region.begin;
  uint64_t original = region.original + (address - region.begin);
  for (const Buffer& buffer : region.buffers) {
    if (original < buffer.address || original >= buffer.address + buffer.size) continue;
    fault.place = int32_t(buffer.argument);
    fault.offset = int64_t(original - buffer.address);
    fault.extent = buffer.size;
  }
}

// The region that a stray address is closest to.
void Checker::nearest(uintptr_t address, Fault& fault) const {
  const Region* best = nullptr;
  uint64_t distance = kGap / 2;
  for (const Region& region : regions_) {
    uint64_t away = address < region.begin ? region.begin - address : address - region.end;
    if (away >= distance) continue;
    best = &region;
    distance = away;
  }
  fault.address = address;
  fault.place = int32_t(Place::kNowhere);
  if (!best) return;
  fault.place = int32_t(best->place);
  fault.offset = int64_t(address - best->begin);
  fault.extent = best->end - best->begin;
}

bool Checker::ordered(uint32_t item, uint32_t step) const {
  return item / width_ == subgroup_ && step < step_;
}

Party Checker::party_of(uint32_t interval, uint32_t item, bool writes) const {
  auto after = std::upper_bound(
      starts_.begin(), starts_.end(), interval,
      [](uint32_t value, const GroupStart& start) { return value < start.interval; });
  uint64_t number = (after - 1)->group;
  Dim group{uint32_t(number % grid_.x), uint32_t(number / grid_.x % grid_.y),
            uint32_t(number / grid_.x / grid_.y)};
  return {group, worker_->item(item).local_id, writes, 1};
}

// Whether the work-item comes after all writes of this interval, or made them all.
bool Checker::after_writes(const Cell& cell) const {
  if (cell.writers) return cell.writers_in_one && ordered(cell.writer, cell.write_step);
  return cell.writer == item_ || ordered(cell.writer, cell.write_step);
}

bool Checker::has_written(const Cell& cell) const {
  if (!cell.writers) return cell.writer == item_;
  return writers_[(cell.writers - 1) * set_words_ + item_ / kBits] >> (item_ % kBits) & 1;
}

void Checker::add_writer(Cell& cell) {
  auto add = [&](uint32_t item) {
    writers_[(cell.writers - 1) * set_words_ + item / kBits] |= uint64_t(1) << (item % kBits);
  };
  if (!cell.writers) {
    writers_.resize(writers_.size() + set_words_);
    cell.writers = uint32_t(writers_.size() / set_words_);
    cell.writers_in_one = 1;
    add(cell.writer);
  }
  add(item_);
  cell.writers_in_one &= cell.writer / width_ == subgroup_;
}

void Checker::refine(Page& page, uint32_t shift) {
  uint32_t parts = 1u << (page.shift - shift);
  page.refine(shift);
  for (uint32_t i = 0; i < Page::kBytes >> shift; ++i) {
    Cell& cell = page.cells[i];
    if (i % parts == 0 || cell.write_interval != interval_ || !cell.writers) continue;
    // Each part has a set of its own from now on.
    size_t from = (cell.writers - 1) * set_words_;
    writers_.resize(writers_.size() + set_words_);
    std::copy_n(writers_.begin() + from, set_words_, writers_.end() - set_words_);
    cell.writers = uint32_t(writers_.size() / set_words_);
  }
}

Checker::Conflict Checker::check_read(const Cell& cell, Party& other) const {
  if (cell.write_interval < since_) return Conflict::kNone;
  bool foreign = cell.write_interval < group_start_;
  if (!foreign) {
    if (cell.write_interval != interval_ || after_writes(cell)) return Conflict::kNone;
    // It sees its own bytes, as all others wrote the same; an atomic operation writes others.
    if (has_written(cell) && !cell.atomic_write) return Conflict::kNone;
  }
  other = party_of(cell.write_interval, cell.writer, true);
  if (!foreign && cell.writer == item_) other.known = 0;
  return Conflict::kRace;
}

Checker::Conflict Checker::check_write(const Cell& cell, Party& other, bool atomic) const {
  Conflict result = Conflict::kNone;
  if (cell.write_interval >= since_ && !(atomic && cell.atomic_write)) {
    bool foreign = cell.write_interval < group_start_;
    if (foreign || (cell.write_interval == interval_ && !after_writes(cell))) {
      other = party_of(cell.write_interval, cell.writer, true);
      if (!foreign && cell.writer == item_) other.known = 0;
      result = atomic || cell.atomic_write ? Conflict::kRace : Conflict::kUnlessEqual;
    }
  }
  if (result == Conflict::kRace) return result;
  if (cell.read_interval >= since_) {
    bool foreign = cell.read_interval < group_start_;
    bool now = cell.read_interval == interval_;
    bool alone = cell.many_readers ? cell.readers_in_one && ordered(cell.reader, cell.read_step)
                                   : cell.reader == item_ || ordered(cell.reader, cell.read_step);
    if (foreign || (now && !alone)) {
      // A reader that saw what a writer of its own had put there would see the same bytes now. One
      // that saw earlier bytes might see these instead, and that they are equal is chance.
      bool chance = atomic || (foreign ? cell.read_outer : cell.read_before);
      if (result == Conflict::kNone || chance) {
        // Of many readers only the first is known, and that may be the work-item itself.
        other = party_of(cell.read_interval, cell.reader, false);
        if (!foreign && cell.reader == item_) other.known = 0;
      }
      return chance ? Conflict::kRace : Conflict::kUnlessEqual;
    }
  }
  if (cell.earlier_read >= since_) {
    bool chance = atomic || cell.read_outer;
    if (result == Conflict::kNone || chance) {
      other = party_of(cell.earlier_read, 0, false);
      other.known = 2;
    }
    return chance ? Conflict::kRace : Conflict::kUnlessEqual;
  }
  return result;
}

void Checker::note_read(Cell& cell) {
  bool now = cell.read_interval == interval_;
  bool first = cell.read_interval < since_;
  cell.read_before = (now && cell.read_before) || cell.write_interval < interval_;
  cell.read_outer = (!first && cell.read_outer) || cell.write_interval < group_start_;
  if (now) {
    if (cell.many_readers) {
      cell.readers_in_one &= cell.reader / width_ == subgroup_;
      cell.read_step = step_;
      return;
    }
    if (cell.reader != item_ && !ordered(cell.reader, cell.read_step)) {
      cell.many_readers = 1;
      cell.readers_in_one = cell.reader / width_ == subgroup_;
      cell.read_step = step_;
      return;
    }
  } else {
    if (first)
      cell.earlier_read = 0;
    else if (cell.read_interval < group_start_)
      cell.earlier_read = cell.read_interval;
    cell.read_interval = interval_;
    cell.many_readers = 0;
  }
  cell.reader = uint16_t(item_);
  cell.read_step = step_;
}

void Checker::note_write(Cell& cell, bool atomic) {
  if (cell.read_interval < since_) cell.earlier_read = 0;
  if (cell.write_interval != interval_ || after_writes(cell))
    cell.writers = 0;
  else
    add_writer(cell);
  cell.write_interval = interval_;
  cell.write_step = step_;
  cell.writer = uint16_t(item_);
  cell.atomic_write = atomic;
}

void Checker::access(Worker& worker, const void* pointer, size_t size, bool writes, bool atomic) {
  auto address = reinterpret_cast<uintptr_t>(pointer);
  const Stacks& stacks = worker.stacks();
  if (address - stacks.low(worker.current_stack()) < Stacks::kBytes) return;
  settle();
  worker_ = &worker;
  if (stacks.contains(address)) {
    if (!worker.stacks_open()) fail(FaultKind::kForeignStack, nullptr, address, size, writes);
    return;
  }
  Region* region = find(address);
  if (!region || address + size > region->end) {
    if (!region && !writes && address >= image_begin_ && address < image_end_) return;
    fail(FaultKind::kOutOfBounds, region, address, size, writes);
  }
  if (writes && region->read_only) fail(FaultKind::kReadOnly, region, address, size, writes);
  region->written |= writes;
  const Item& item = worker.current();
  item_ = item.index;
  subgroup_ = item.subgroup;
  step_ = steps_[subgroup_];
  // Local memory is new for each work-group.
  since_ = region->original ? launch_start_ : group_start_;

  // Pages begin where the memory's do, so that an aligned access never straddles two cells.
  uintptr_t base = region->begin & ~kPageMask;
  size_t start = address - base, end = start + size;
  Conflict worst = Conflict::kNone;
  size_t where = 0, where_end = 0;
  Party other, first;
  while (start < end) {
    Page& cells = page(*region, start);
    size_t stop = std::min(end, (start / Page::kBytes + 1) * Page::kBytes);
    size_t odd = start | stop;
    uint32_t needed = odd & 1 ? 0 : odd & 2 ? 1 : 2;
    if (needed < cells.shift) refine(cells, needed);
    uint32_t shift = cells.shift;
    for (size_t i = start; i < stop; i += size_t(1) << shift) {
      Cell& cell = cells.cells[(i % Page::kBytes) >> shift];
      Conflict found = writes ? check_write(cell, other, atomic) : check_read(cell, other);
      writes ? note_write(cell, atomic) : note_read(cell);
      if (found == Conflict::kNone) continue;
      if (found > worst) worst = found, first = other, where = i;
      where_end = i + (size_t(1) << shift);
    }
    start = stop;
  }
  if (worst == Conflict::kNone) return;
  Fault fault = fault_of(FaultKind::kRace, region, base + where, size, writes, &first);
  if (worst == Conflict::kRace || where_end - where > kMostPending) worker.fail(fault);
  pending_fault_ = fault;
  pending_address_ = base + where;
  pending_size_ = where_end - where;
  memcpy(pending_bytes_, reinterpret_cast<const void*>(pending_address_), pending_size_);
}

Fault Checker::fault_of(FaultKind kind, const Region* region, uintptr_t address, size_t size,
                        bool writes, const Party* other) const {
  Fault fault{};
  fault.kind = kind;
  fault.size = size;
  fault.actor = worker_->party(writes);
  if (other) fault.other = *other;
  region ? describe(*region, address, fault) : nearest(address, fault);
  return fault;
}

void Checker::fail(FaultKind kind, const Region* region, uintptr_t address, size_t size,
                   bool writes, const Party* other) const {
  worker_->fail(fault_of(kind, region, address, size, writes, other));
}

void Checker::settle_now() {
  size_t size = pending_size_;
  pending_size_ = 0;
  if (memcmp(pending_bytes_, reinterpret_cast<const void*>(pending_address_), size) != 0)
    worker_->fail(pending_fault_);
}

}  // namespace emu
