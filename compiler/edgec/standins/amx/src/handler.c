// AMX on a processor without it: each of its instructions raises SIGILL, whose handler executes it.

#define _GNU_SOURCE
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>
#include <unistd.h>

#include "tiles.h"

static struct sigaction before;
static atomic_long executed[kOperations];

// Numbers of registers in instructions, in the order in which the kernel saves them.
static const int kRegisters[16] = {REG_RAX, REG_RCX, REG_RDX, REG_RBX, REG_RSP, REG_RBP,
                                   REG_RSI, REG_RDI, REG_R8,  REG_R9,  REG_R10, REG_R11,
                                   REG_R12, REG_R13, REG_R14, REG_R15};

static int64_t displacement(const uint8_t** code, int bytes) {
  int8_t small;
  int32_t large;
  const uint8_t* at = *code;
  *code += bytes;
  if (bytes == 0) return 0;
  if (bytes == 1) {
    memcpy(&small, at, sizeof small);
    return small;
  }
  memcpy(&large, at, sizeof large);
  return large;
}

// Reads the operand in memory that begins at the byte ModRM. `high` has a bit for the upper eight
// registers: 1 for the base, 2 for the index. An index is a stride of tiles, and part of the address
// elsewhere.
static void memory_operand(const uint8_t** code, const greg_t* registers, int high, bool tile,
                           Instruction* out) {
  const uint8_t* at = *code;
  const int mod = at[0] >> 6, rm = at[0] & 7;
  const int base_high = high & 1 ? 8 : 0, index_high = high & 2 ? 8 : 0;
  int64_t address = 0, index = 0;
  int bytes = mod == 1 ? 1 : mod == 2 ? 4 : 0;
  bool relative = false;
  at += 1;
  if (rm == 4) {
    const int sib = *at++;
    const int base = sib & 7, number = (sib >> 3 & 7) + index_high;
    if (number != 4) {
      index = (int64_t)((uint64_t)registers[kRegisters[number]] << (sib >> 6));
    }
    if (base == 5 && mod == 0) {
      bytes = 4;
    } else {
      address = registers[kRegisters[base + base_high]];
    }
  } else if (rm == 5 && mod == 0) {
    bytes = 4;
    relative = true;
  } else {
    address = registers[kRegisters[rm + base_high]];
  }
  address += displacement(&at, bytes);
  if (relative) address += (int64_t)at;
  out->stride = tile ? index : 0;
  out->address = (uint8_t*)(address + (tile ? 0 : index));
  *code = at;
}

// Reads the instruction at `*code` and moves that behind it. All of AMX's have a VEX prefix of three
// bytes, map 0F38, W and L zero, tiles 0 to 7, and (what the manual asks for) no prefix before it;
// anything else isn't AMX: false.
static bool decode(const uint8_t** code, const greg_t* registers, Instruction* out) {
  const uint8_t* at = *code;
  if (at[0] != 0xc4 || (at[1] & 0x1f) != 2) return false;
  const int prefix = at[2] & 3, opcode = at[3], modrm = at[4];
  const int high_tile = !(at[1] & 0x80), high = (at[1] & 0x20 ? 0 : 1) | (at[1] & 0x40 ? 0 : 2);
  const int third = ~(at[2] >> 3) & 15;
  const bool in_memory = modrm >> 6 != 3;
  if (at[2] & 0x84 || high_tile) return false;
  out->tile = modrm >> 3 & 7;
  out->left = modrm & 7;
  out->right = third;
  at += 4;
  if (opcode == 0x5c || opcode == 0x5e) {
    static const Operation kProducts[4] = {kUnsignedUnsigned, kUnsignedSigned, kSignedUnsigned,
                                           kSignedSigned};
    if (in_memory || third > 7 || high & 1) return false;
    if (opcode == 0x5c && prefix != 2) return false;
    out->operation = opcode == 0x5c ? kBrainFloat : kProducts[prefix];
    *code = at + 1;
    return true;
  }
  if (third) return false;
  if (opcode == 0x49 && !in_memory) {
    if (prefix == 0 && modrm == 0xc0) {
      out->operation = kRelease;
    } else if (prefix == 3 && (modrm & 7) == 0) {
      out->operation = kZero;
    } else {
      return false;
    }
    *code = at + 1;
    return true;
  }
  if (!in_memory) return false;
  if (opcode == 0x49 && prefix < 2 && out->tile == 0) {
    out->operation = prefix ? kStoreConfig : kLoadConfig;
  } else if (opcode == 0x4b && prefix != 0 && (modrm & 7) == 4) {
    static const Operation kMoves[4] = {kOperations, kLoadOnce, kStore, kLoad};
    out->operation = kMoves[prefix];
  } else {
    return false;
  }
  *code = at;
  memory_operand(code, registers, high, opcode == 0x4b, out);
  return true;
}

static void say(const char* text) {
  ssize_t written = write(STDERR_FILENO, text, strlen(text));
  (void)written;
}

static void refuse(const Instruction* instruction, const char* reason) {
  say("emulated AMX: ");
  say(edgec_amx_names[instruction->operation]);
  say(" is refused, as a processor with AMX would: ");
  say(reason);
  say("\n");
  abort();
}

// As if the handler weren't there.
static void pass_on(int number, siginfo_t* info, void* context) {
  if (before.sa_flags & SA_SIGINFO) {
    before.sa_sigaction(number, info, context);
  } else if (before.sa_handler == SIG_DFL || before.sa_handler == SIG_IGN) {
    // The instruction raises it again. The kernel ignores no SIGILL of an instruction.
    signal(number, SIG_DFL);
  } else {
    before.sa_handler(number);
  }
}

static void handle(int number, siginfo_t* info, void* context) {
  greg_t* registers = ((ucontext_t*)context)->uc_mcontext.gregs;
  const uint8_t* code = (const uint8_t*)registers[REG_RIP];
  Instruction instruction;
  if (info->si_code <= 0 || !decode(&code, registers, &instruction)) {
    pass_on(number, info, context);
    return;
  }
  // Those that follow are executed at once: a signal costs more than most of them.
  do {
    const char* wrong = edgec_amx_execute(&instruction);
    if (wrong) refuse(&instruction, wrong);
    atomic_fetch_add_explicit(&executed[instruction.operation], 1, memory_order_relaxed);
    registers[REG_RIP] = (greg_t)code;
  } while (decode(&code, registers, &instruction));
}

// Handles SIGILL from now on; what handled it before gets all that isn't AMX. May be called again,
// after something else took the signal. Returns 0, or -1 as sigaction does.
int edgec_amx_install(void) {
  struct sigaction now, ours;
  if (sigaction(SIGILL, NULL, &now)) return -1;
  if (now.sa_flags & SA_SIGINFO && now.sa_sigaction == handle) return 0;
  memset(&ours, 0, sizeof ours);
  ours.sa_sigaction = handle;
  ours.sa_flags = SA_SIGINFO;
  sigemptyset(&ours.sa_mask);
  before = now;
  return sigaction(SIGILL, &ours, NULL);
}

// How many instructions of a name were executed so far, by all threads; -1 for an unknown name.
long edgec_amx_executed(const char* name) {
  for (int i = 0; i < kOperations; ++i) {
    if (!strcmp(name, edgec_amx_names[i])) return atomic_load(&executed[i]);
  }
  return -1;
}
