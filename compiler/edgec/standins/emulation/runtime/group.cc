// One work-group: work-items as fibers, in a fixed order.
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <csignal>

#include "checker.h"
#include "engine.h"
#include "fiber.h"

namespace emu {
namespace {

constexpr size_t kGuard = 4096;
// Stacks whose tops lie a power of two apart would compete for the same lines of the cache.
constexpr size_t kColours = 64, kColourBytes = 320;

}  // namespace

Stacks::~Stacks() {
  if (memory_) munmap(memory_, bytes_);
}

bool Stacks::reset(uint32_t count) {
  if (count > count_) {
    if (memory_) munmap(memory_, bytes_);
    bytes_ = size_t(count) * kBytes;
    void* memory = mmap(nullptr, bytes_, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    memory_ = memory == MAP_FAILED ? nullptr : static_cast<char*>(memory);
    count_ = memory_ ? count : 0;
    if (!memory_) bytes_ = 0;
    for (uint32_t i = 0; i < count_; ++i) mprotect(memory_ + i * kBytes, kGuard, PROT_NONE);
    free_.resize(count);
  }
  free_count_ = count_;
  for (uint32_t i = 0; i < count_; ++i) free_[i] = count_ - 1 - i;
  return count_ >= count;
}

char* Stacks::top(uint32_t index) const {
  return memory_ + (index + 1) * kBytes - index % kColours * kColourBytes;
}

uintptr_t Stacks::low(uint32_t index) const { return base() + index * kBytes; }

bool Stacks::guards(uintptr_t address) const {
  return contains(address) && (address - base()) % kBytes < kGuard;
}

void Worker::prepare(const Launch& launch, const Kernel& kernel, Checker* checker) {
  bool same = count_ && group_.x == launch.group.x && group_.y == launch.group.y &&
              group_.z == launch.group.z && width_ == launch.subgroup_width;
  launch_ = &launch;
  kernel_ = &kernel;
  state_ = kernel.state;
  checker_ = checker;
  group_ = launch.group;
  width_ = launch.subgroup_width;
  count_ = group_.x * group_.y * group_.z;
  if (!same) {
    items_.resize(count_);
    for (uint32_t i = 0; i < count_; ++i)
      items_[i] = {{i % group_.x, i / group_.x % group_.y, i / group_.x / group_.y},
                   i, i % width_, i / width_};
    contexts_.assign(count_, nullptr);
    stack_of_.assign(count_, 0);
    line_of_.assign(count_, 0);
    subgroups_.assign((count_ + width_ - 1) / width_, {});
    shared_.resize(subgroups_.size() * 2);
  }
  dynamic_shared_.resize(launch.dynamic_shared + 256);
  auto start = reinterpret_cast<uintptr_t>(dynamic_shared_.data());
  services_ = {barrier, share, open_stacks, checker ? access : nullptr,
               checker ? atomic : nullptr, trap};
  *state_ = {};
  state_->worker = this;
  state_->services = &services_;
  state_->grid_size = launch.grid;
  state_->group_size = group_;
  state_->subgroup_width = width_;
  state_->dynamic_shared_size = launch.dynamic_shared;
  state_->dynamic_shared = reinterpret_cast<void*>((start + 255) & ~uintptr_t(255));
  if (checker)
    checker->local_memory(kernel.shared_begin, kernel.shared_end - kernel.shared_begin,
                          state_->dynamic_shared, launch.dynamic_shared);
  fault_ = {};
  busy_ = false;
  expired_ = false;
}

bool Worker::run() {
  if (sigsetjmp(escape_, 1)) return false;
  if (!stacks_.reset(count_)) trap(this, "there is no memory for the stacks of its work-items");
  if (!begin_group()) return true;
  int64_t first = next();
  become(uint32_t(first));
  stack_ = stacks_.take();
  emu_switch(&main_context_, new_fiber(stacks_.top(stack_), runner, this));
  return fault_.kind == FaultKind::kNone;
}

void Worker::fail_expired() {
  Fault fault{};
  fault.kind = FaultKind::kEndless;
  fault.actor = party(false);
  escape_with(fault);
}

bool Worker::begin_group() {
  Busy busy(*this);
  uint64_t number;
  if (!take_group(*this, &number)) return false;
  Dim grid = launch_->grid;
  state_->group_id = {uint32_t(number % grid.x), uint32_t(number / grid.x % grid.y),
                      uint32_t(number / grid.x / grid.y)};
  open_stacks_ = 0;
  cursor_ = 0;
  for (uint32_t i = 0; i < subgroups_.size(); ++i) {
    uint32_t size = std::min(width_, count_ - i * width_);
    uint64_t all = size == 64 ? ~uint64_t(0) : (uint64_t(1) << size) - 1;
    subgroups_[i] = {all, all, 0, 0, 0, 0, false};
  }
  if (kernel_->shared_end != kernel_->shared_begin)
    memset(kernel_->shared_begin, 0xFF, size_t(kernel_->shared_end - kernel_->shared_begin));
  if (launch_->dynamic_shared) memset(state_->dynamic_shared, 0xFF, launch_->dynamic_shared);
  if (checker_) checker_->begin_group(number);
  return true;
}

// The work-item to go on with, or -1 when all have returned. A sub-group runs until each of its
// work-items waits for the work-group or has returned; then it is the next one's turn.
int64_t Worker::next() {
  bool reverse = launch_->reverse;
  auto number = uint32_t(subgroups_.size());
  for (;;) {
    for (; cursor_ < number; ++cursor_) {
      uint32_t index = reverse ? number - 1 - cursor_ : cursor_;
      Subgroup& subgroup = subgroups_[index];
      if (!subgroup.runnable && subgroup.at_share) {
        shared_[index * 2 + (subgroup.generation++ & 1)].participants = subgroup.at_share;
        subgroup.runnable = subgroup.at_share;
        subgroup.at_share = 0;
        if (checker_ && subgroup.orders) checker_->subgroup_step(index);
      }
      if (subgroup.runnable) {
        int lane = reverse ? 63 - std::countl_zero(subgroup.runnable)
                           : std::countr_zero(subgroup.runnable);
        return int64_t(index) * width_ + lane;
      }
    }
    uint64_t waiting = 0, returned = 0;
    for (Subgroup& subgroup : subgroups_) {
      waiting |= subgroup.at_barrier;
      returned |= subgroup.all & ~subgroup.at_barrier;
    }
    if (!waiting) return -1;
    for (uint32_t i = 0; returned && i < count_; ++i)
      if (subgroups_[i / width_].at_barrier >> (i % width_) & 1) divergent(i);
    for (uint32_t i = 1; checker_ && i < count_; ++i)
      if (line_of_[i] != line_of_[0]) divergent(i);
    for (Subgroup& subgroup : subgroups_) {
      subgroup.runnable = subgroup.at_barrier;
      subgroup.at_barrier = 0;
    }
    if (checker_) checker_->next_interval();
    cursor_ = 0;
  }
}

void Worker::divergent(uint32_t waiting) {
  Fault fault{};
  fault.kind = FaultKind::kDivergent;
  fault.actor = {state_->group_id, items_[waiting].local_id, 0, 1};
  for (uint32_t i = 0; i < count_; ++i) {
    bool waits = subgroups_[i / width_].at_barrier >> (i % width_) & 1;
    if (waits && line_of_[i] == line_of_[waiting]) continue;
    fault.other = {state_->group_id, items_[i].local_id, waits, 1};
    break;
  }
  fail(fault);
}

void Worker::become(uint32_t index) {
  Subgroup& subgroup = subgroups_[index / width_];
  uint64_t bit = uint64_t(1) << (index % width_);
  subgroup.runnable &= ~bit;
  state_->item = &items_[index];
}

// Called by a work-item that has been noted as waiting; returns when it is to go on.
void Worker::wait() {
  uint32_t me = current().index;
  auto index = uint32_t(next());
  become(index);
  if (index == me) return;
  stack_of_[me] = stack_;
  Subgroup& subgroup = subgroups_[index / width_];
  uint64_t bit = uint64_t(1) << (index % width_);
  if (subgroup.started & bit) {
    stack_ = stack_of_[index];
    emu_switch(&contexts_[me], contexts_[index]);
  } else {
    stack_ = stacks_.take();
    emu_switch(&contexts_[me], new_fiber(stacks_.top(stack_), runner, this));
  }
}

// A stack on which work-items run one after the other, as long as none has to wait.
void Worker::runner(void* argument) {
  auto* self = static_cast<Worker*>(argument);
  for (;;) {
    uint32_t me = self->current().index;
    self->subgroups_[me / self->width_].started |= uint64_t(1) << (me % self->width_);
    self->kernel_->body(self->launch_->arguments);
    if (self->checker_) self->checker_->settle();
    int64_t index = self->next();
    if (index < 0) {
      if (!self->begin_group()) self->leave();
      index = self->next();
    }
    self->become(uint32_t(index));
    uint64_t started = self->subgroups_[index / self->width_].started;
    if (!(started >> (index % self->width_) & 1)) continue;
    self->stacks_.give(self->stack_);
    self->stack_ = self->stack_of_[index];
    void* abandoned;
    emu_switch(&abandoned, self->contexts_[index]);
  }
}

void Worker::leave() {
  void* abandoned;
  emu_switch(&abandoned, main_context_);
  __builtin_unreachable();
}

void Worker::fail(const Fault& fault) {
  fault_ = fault;
  siglongjmp(escape_, 1);
}

void Worker::escape_with(const Fault& fault) {
  fault_ = fault;
  siglongjmp(escape_, 1);
}

void Worker::barrier(void* worker, uint32_t line) {
  auto* self = static_cast<Worker*>(worker);
  if (self->checker_) self->checker_->settle();
  uint32_t me = self->current().index;
  self->line_of_[me] = line;
  self->subgroups_[me / self->width_].at_barrier |= uint64_t(1) << (me % self->width_);
  self->wait();
}

const Shared* Worker::share(void* worker, const void* value, size_t size, bool orders) {
  auto* self = static_cast<Worker*>(worker);
  if (self->checker_) self->checker_->settle();
  const Item& item = self->current();
  Subgroup& subgroup = self->subgroups_[item.subgroup];
  // Two in turn: while one lane still reads, the others can begin the next collective, but can't
  // complete it.
  Shared& shared = self->shared_[item.subgroup * 2 + (subgroup.generation & 1)];
  if (size) memcpy(shared.slot[item.lane], value, size);
  subgroup.orders = orders && (subgroup.orders || !subgroup.at_share);
  subgroup.at_share |= uint64_t(1) << item.lane;
  self->wait();
  return &shared;
}

void Worker::open_stacks(void* worker, bool open) {
  static_cast<Worker*>(worker)->open_stacks_ += open ? 1 : -1;
}

void Worker::access(void* worker, const void* address, size_t size, bool writes) {
  auto* self = static_cast<Worker*>(worker);
  Busy busy(*self);
  self->checker_->access(*self, address, size, writes, false);
}

void Worker::atomic(void* worker, const void* address, size_t size) {
  auto* self = static_cast<Worker*>(worker);
  Busy busy(*self);
  self->checker_->access(*self, address, size, true, true);
}

void Worker::trap(void* worker, const char* reason) {
  Fault fault{};
  fault.kind = FaultKind::kTrap;
  auto* self = static_cast<Worker*>(worker);
  fault.actor = self->party(false);
  for (size_t i = 0; i + 1 < sizeof fault.reason && reason[i]; ++i) fault.reason[i] = reason[i];
  self->fail(fault);
}

}  // namespace emu
