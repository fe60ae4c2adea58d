// The tiles of one thread and what AMX's instructions do to them, as Intel's manual defines it.

#ifndef EDGEC_AMX_TILES_H_
#define EDGEC_AMX_TILES_H_

#include <stdbool.h>
#include <stdint.h>

enum { kTiles = 8, kRows = 16, kRowBytes = 64, kConfigBytes = 64 };

typedef enum {
  kLoadConfig,
  kStoreConfig,
  kRelease,
  kZero,
  kLoad,
  kLoadOnce,
  kStore,
  kSignedSigned,
  kSignedUnsigned,
  kUnsignedSigned,
  kUnsignedUnsigned,
  kBrainFloat,
  kOperations
} Operation;

// An instruction with its operands. For products `tile` is the sum and `left` and `right` are the
// factors; for moves of tiles a row `r` is at `address + r * stride`.
typedef struct {
  Operation operation;
  int tile, left, right;
  uint8_t* address;
  int64_t stride;
} Instruction;

extern const char* const edgec_amx_names[kOperations];

// Executes it on the tiles of this thread. What the manual calls #UD or #GP isn't executed: it gives
// the reason, else NULL. Uses, and doesn't restore, the rounding and denormal modes of this thread.
const char* edgec_amx_execute(const Instruction* instruction);

#endif
