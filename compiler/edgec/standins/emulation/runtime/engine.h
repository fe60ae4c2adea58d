// The engine that runs kernels on this CPU: what its parts share, and its interface to Python.
#pragma once

#include <csetjmp>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "emu.h"

namespace emu {

// The numbers are known to the Python side (engine.py).
enum class FaultKind : uint32_t {
  kNone = 0,
  kOutOfBounds = 1,  // an access outside of every buffer and of local memory
  kReadOnly = 2,     // a write to a buffer that the kernel declares const
  kRace = 3,         // two accesses that nothing orders
  kDivergent = 4,    // a barrier that some work-items don't reach
  kSignal = 5,       // SIGSEGV, SIGBUS, SIGFPE or SIGILL
  kEndless = 6,      // the time limit
  kTrap = 7,         // a shim can't do what the kernel asks for
  kForeignStack = 8, // private memory of another work-item
  kStack = 9,        // too much private memory
};

enum class Place : int32_t { kNowhere = -1, kLocal = -2, kDynamic = -3, kImage = -4 };

struct Party {
  Dim group, item;
  uint32_t writes;
  uint32_t known;
};

struct Fault {
  FaultKind kind;
  int32_t signal;
  int32_t place;       // argument's position, or a Place
  uint32_t code;       // of the signal
  int64_t offset;      // bytes from the start of `place`
  uint64_t size;       // of the access, bytes
  uint64_t extent;     // of `place`, bytes
  uint64_t address;
  Party actor, other;
  char reason[256];
};

struct Buffer {
  uint64_t address;
  uint64_t size;      // bytes
  uint32_t argument;  // position
  uint32_t read_only;
};

struct Launch {
  const Kernel* const* copies;  // one per thread; copies[0] is there
  uint32_t copy_count;
  uint32_t argument_count;
  const uint64_t* arguments;
  Dim grid, group;
  uint32_t subgroup_width;
  uint32_t dynamic_shared;  // bytes
  uint32_t reverse;         // run groups and work-items from the last to the first
  uint32_t checked;
  const Buffer* buffers;
  uint32_t buffer_count;
  uint32_t reserved;
  double seconds;  // of CPU time for each thread
};

class Checker;

// The stacks of one thread's work-items, in one piece of address space.
class Stacks {
 public:
  ~Stacks();
  // Makes sure that there are `count`, and that all are free; false if there is no memory.
  bool reset(uint32_t count);
  uint32_t take() { return free_[--free_count_]; }
  void give(uint32_t index) { free_[free_count_++] = index; }
  char* top(uint32_t index) const;
  uintptr_t low(uint32_t index) const;
  bool contains(uintptr_t address) const { return address - base() < bytes_; }
  bool guards(uintptr_t address) const;
  static constexpr size_t kBytes = 256 << 10;

 private:
  uintptr_t base() const { return reinterpret_cast<uintptr_t>(memory_); }
  char* memory_ = nullptr;
  size_t bytes_ = 0;
  uint32_t count_ = 0;
  uint32_t free_count_ = 0;
  std::vector<uint32_t> free_;
};

// One thread's work-group and its scheduler.
class Worker {
 public:
  // Prepares for work-groups of this launch, which run with `kernel`.
  void prepare(const Launch& launch, const Kernel& kernel, Checker* checker);
  // Runs work-groups until `take_group` has no more; false if a fault ended it.
  bool run();

  const Fault& fault() const { return fault_; }
  // Ends the launch from within a work-item; doesn't return.
  [[noreturn]] void fail(const Fault& fault);
  // The same from within a signal handler.
  [[noreturn]] void escape_with(const Fault& fault);

  // Within a Busy the time limit doesn't interrupt; its end is the time to notice.
  bool busy() const { return busy_; }
  void expire() { expired_ = true; }
  class Busy {
   public:
    explicit Busy(Worker& worker) : worker_(worker) { worker_.busy_ = true; }
    ~Busy() {
      worker_.busy_ = false;
      if (worker_.expired_) worker_.fail_expired();
    }

   private:
    Worker& worker_;
  };

  const Item& current() const { return *state_->item; }
  // Before the first work-item has begun it is the first one.
  Party party(bool writes) const {
    return {state_->group_id, state_->item ? state_->item->local_id : Dim{}, writes, 1};
  }
  const Item& item(uint32_t index) const { return items_[index]; }
  const Stacks& stacks() const { return stacks_; }
  uint32_t current_stack() const { return stack_; }
  bool stacks_open() const { return open_stacks_ != 0; }
  Dim group_id() const { return state_->group_id; }

  // The linear number of the next work-group; false if there is none.
  bool (*take_group)(Worker&, uint64_t* number) = nullptr;

 private:
  struct Subgroup {
    uint64_t all, runnable, at_barrier, at_share, started;
    uint32_t generation;
    bool orders;  // those at `at_share` wait in a barrier
  };
  static void barrier(void* worker, uint32_t line);
  static const Shared* share(void* worker, const void* value, size_t size, bool orders);
  static void open_stacks(void* worker, bool open);
  static void access(void* worker, const void* address, size_t size, bool writes);
  static void atomic(void* worker, const void* address, size_t size);
  static void trap(void* worker, const char* reason);
  static void runner(void* worker);

  bool begin_group();
  void fail_expired();
  int64_t next();
  void become(uint32_t index);
  void wait();
  [[noreturn]] void leave();
  [[noreturn]] void divergent(uint32_t waiting);

  const Launch* launch_ = nullptr;
  const Kernel* kernel_ = nullptr;
  State* state_ = nullptr;
  Checker* checker_ = nullptr;
  Services services_{};
  Dim group_{};
  uint32_t width_ = 0, count_ = 0;
  uint32_t cursor_ = 0;  // the sub-group that runs
  uint32_t stack_ = 0;   // of the fiber that runs
  uint32_t open_stacks_ = 0;
  volatile bool busy_ = false, expired_ = false;
  std::vector<Item> items_;
  std::vector<void*> contexts_;
  std::vector<uint32_t> stack_of_;
  std::vector<uint32_t> line_of_;  // of the barrier that a work-item waits at
  std::vector<Subgroup> subgroups_;
  std::vector<Shared> shared_;  // two per sub-group, used in turn
  std::vector<char> dynamic_shared_;
  Stacks stacks_;
  void* main_context_ = nullptr;
  sigjmp_buf escape_;
  Fault fault_{};
};

// The worker that runs on this thread; null outside of a launch.
extern thread_local Worker* active_worker;

}  // namespace emu
