// A launch: threads, signals and the time limit around the work-groups.
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <memory>
#include <mutex>
#include <thread>

#include "checker.h"
#include "engine.h"

namespace emu {

thread_local Worker* active_worker = nullptr;

namespace {

constexpr int kFatal[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL};
constexpr size_t kFatalCount = sizeof kFatal / sizeof *kFatal;
// A launch that takes longer is worth a second thread, which takes some ten microseconds to begin.
constexpr auto kAlone = std::chrono::microseconds(100);
constexpr size_t kSignalStack = 64 << 10;

int time_signal() { return SIGRTMAX - 3; }

struct Handlers {
  struct sigaction fatal[kFatalCount];
  struct sigaction time;
};
Handlers earlier;

void on_signal(int number, siginfo_t* info, void*) {
  Worker* worker = active_worker;
  if (!worker) {
    // Not ours: the instruction fails again, with the handler that was there before.
    for (size_t i = 0; i < kFatalCount; ++i)
      if (kFatal[i] == number) sigaction(number, &earlier.fatal[i], nullptr);
    return;
  }
  // The engine's own code may hold a lock, such as the allocator's: it looks at the end.
  if (number == time_signal() && worker->busy()) return worker->expire();
  active_worker = nullptr;
  Fault fault{};
  fault.kind = number == time_signal() ? FaultKind::kEndless : FaultKind::kSignal;
  fault.signal = number;
  fault.code = uint32_t(info->si_code);
  fault.place = int32_t(Place::kNowhere);
  fault.address = reinterpret_cast<uint64_t>(info->si_addr);
  if (fault.kind == FaultKind::kSignal && worker->stacks().guards(fault.address))
    fault.kind = FaultKind::kStack;
  fault.actor = worker->party(false);
  worker->escape_with(fault);
}

class SignalScope {
 public:
  SignalScope() {
    struct sigaction action {};
    action.sa_sigaction = on_signal;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < kFatalCount; ++i) sigaction(kFatal[i], &action, &earlier.fatal[i]);
    sigaction(time_signal(), &action, &earlier.time);
  }
  ~SignalScope() {
    for (size_t i = 0; i < kFatalCount; ++i) sigaction(kFatal[i], &earlier.fatal[i], nullptr);
    sigaction(time_signal(), &earlier.time, nullptr);
  }
};

// A stack for signal handlers, and the limit of CPU time, of the calling thread.
class ThreadScope {
 public:
  ThreadScope(char* stack, double seconds) {
    stack_t mine{};
    mine.ss_sp = stack;
    mine.ss_size = kSignalStack;
    sigaltstack(&mine, &earlier_);
    struct sigevent event {};
    event.sigev_notify = SIGEV_THREAD_ID;
    event.sigev_signo = time_signal();
#ifdef sigev_notify_thread_id
    event.sigev_notify_thread_id = pid_t(syscall(SYS_gettid));
#else
    event._sigev_un._tid = pid_t(syscall(SYS_gettid));
#endif
    timed_ = timer_create(CLOCK_THREAD_CPUTIME_ID, &event, &timer_) == 0;
    struct itimerspec limit {};
    limit.it_value.tv_sec = time_t(seconds);
    limit.it_value.tv_nsec = long((seconds - double(limit.it_value.tv_sec)) * 1e9);
    if (timed_) timer_settime(timer_, 0, &limit, nullptr);
  }
  ~ThreadScope() {
    if (timed_) timer_delete(timer_);
    if (earlier_.ss_flags & SS_ONSTACK) return;
    sigaltstack(&earlier_, nullptr);
  }

 private:
  stack_t earlier_{};
  timer_t timer_{};
  bool timed_ = false;
};

struct Slot {
  Worker worker;
  std::unique_ptr<char[]> signal_stack{new char[kSignalStack]};
};

// What is kept from launch to launch.
struct Engine {
  std::mutex mutex;
  std::vector<std::unique_ptr<Slot>> slots;
  Checker checker;
};

// Never destroyed: threads of a process that ends may still be in it.
Engine& engine() {
  static auto* instance = new Engine;
  return *instance;
}

// The work-groups of the launch that runs.
struct Progress {
  const Launch* launch;
  uint64_t groups;
  std::atomic<uint64_t> taken{0};
  std::atomic<bool> stop{false};
  std::chrono::steady_clock::time_point start = std::chrono::steady_clock::now();
  std::vector<std::thread> helpers;
  bool helped = false;
};
Progress* progress;

bool work(Slot& slot, const Launch& launch, uint32_t copy, Checker* checker) {
  slot.worker.prepare(launch, *launch.copies[copy], checker);
  ThreadScope scope(slot.signal_stack.get(), launch.seconds);
  active_worker = &slot.worker;
  bool good = slot.worker.run();
  active_worker = nullptr;
  if (!good) progress->stop = true;
  return good;
}

bool take_group(Worker& worker, uint64_t* number) {
  Progress& now = *progress;
  if (now.stop) return false;
  uint64_t taken = now.taken++;
  if (taken >= now.groups) return false;
  *number = now.launch->reverse ? now.groups - 1 - taken : taken;
  auto& slots = engine().slots;
  if (now.helped || now.launch->copy_count < 2 || &worker != &slots[0]->worker) return true;
  if (now.groups - taken < 2 || std::chrono::steady_clock::now() - now.start < kAlone) return true;
  now.helped = true;
  for (uint32_t i = 1; i < now.launch->copy_count; ++i)
    now.helpers.emplace_back([i] { work(*engine().slots[i], *progress->launch, i, nullptr); });
  return true;
}

}  // namespace
}  // namespace emu

extern "C" __attribute__((visibility("default"))) int emu_launch(const emu::Launch* given,
                                                                 emu::Fault* fault) {
  using namespace emu;
  Engine& all = engine();
  std::lock_guard<std::mutex> lock(all.mutex);
  Launch launch = *given;
  std::vector<uint64_t> arguments(launch.arguments, launch.arguments + launch.argument_count);
  launch.arguments = arguments.data();
  while (all.slots.size() < launch.copy_count) {
    all.slots.push_back(std::make_unique<Slot>());
    all.slots.back()->worker.take_group = take_group;
  }
  Checker* checker = launch.checked ? &all.checker : nullptr;
  if (checker) {
    launch.copy_count = 1;
    if (!checker->begin(launch, *launch.copies[0], arguments)) return -1;
  }
  Progress now{&launch, uint64_t(launch.grid.x) * launch.grid.y * launch.grid.z};
  progress = &now;
  {
    SignalScope signals;
    work(*all.slots[0], launch, 0, checker);
    for (std::thread& helper : now.helpers) helper.join();
  }
  progress = nullptr;
  if (checker) checker->end();
  for (uint32_t i = 0; i < (now.helped ? launch.copy_count : 1); ++i) {
    *fault = all.slots[i]->worker.fault();
    if (fault->kind != FaultKind::kNone) return 1;
  }
  return 0;
}
