/* How this process ends before its time: by a fault of the host code, which the verifying process is
 * told, or because that process is gone while a function runs. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <sys/time.h>
#include <ucontext.h>
#include <unistd.h>

#include "guest.h"

enum { STACK_SIZE = 1 << 16 };

static uint64_t instruction_of(const ucontext_t* context) {
#if defined(__aarch64__)
  return context->uc_mcontext.pc;
#elif defined(__x86_64__)
  return (uint64_t)context->uc_mcontext.gregs[REG_RIP];
#else
#error "the guest runs on aarch64 and x86-64"
#endif
}

static void report(int number, siginfo_t* info, void* context) {
  struct {
    struct edgec_reply_header header;
    struct edgec_fault fault;
  } message = {{sizeof message, EDGEC_FAULT, 0, 0, {0, 0, 0}}, {0, 0, 0, 0}};
  message.fault.signal = (uint64_t)number;
  message.fault.address = (uint64_t)info->si_addr;
  message.fault.instruction = instruction_of(context);
  message.fault.library_offset = library_offset(message.fault.instruction);
  send_all(&message, sizeof message);
  _exit(128 + number);
}

void report_faults(void) {
  /* A stack of its own: the fault may be that the stack is full. */
  stack_t stack = {.ss_sp = malloc(STACK_SIZE), .ss_size = STACK_SIZE};
  if (!stack.ss_sp || sigaltstack(&stack, NULL)) die("no stack for signals");
  struct sigaction action = {.sa_sigaction = report,
                             .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_RESETHAND};
  const int faults[] = {SIGILL, SIGSEGV, SIGBUS, SIGFPE, SIGTRAP, SIGABRT};
  for (size_t i = 0; i < sizeof faults / sizeof *faults; ++i) sigaction(faults[i], &action, NULL);
}

static pid_t owner;

static void check_owner(int number) {
  (void)number;
  if (getppid() != owner) _exit(0);
}

void end_with_owner(void) {
  const struct itimerval every_second = {{1, 0}, {1, 0}};
  struct sigaction action = {.sa_handler = check_owner, .sa_flags = SA_RESTART | SA_ONSTACK};
  owner = getppid();
  if (sigaction(SIGALRM, &action, NULL) || setitimer(ITIMER_REAL, &every_second, NULL)) {
    die("no timer");
  }
}
