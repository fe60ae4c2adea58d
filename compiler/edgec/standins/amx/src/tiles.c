#include "tiles.h"

#include <immintrin.h>
#include <string.h>

const char* const edgec_amx_names[kOperations] = {
    "ldtilecfg", "sttilecfg", "tilerelease", "tilezero", "tileloadd", "tileloaddt1",
    "tilestored", "tdpbssd", "tdpbsud", "tdpbusd", "tdpbuud", "tdpbf16ps",
};

typedef struct {
  bool configured;
  int start_row;
  int rows[kTiles], bytes[kTiles];
  uint8_t data[kTiles][kRows][kRowBytes] __attribute__((aligned(64)));
} Tiles;

static __thread Tiles tiles;

static void zero_rows_from(int tile, int row) {
  memset(tiles.data[tile][row], 0, (size_t)(kRows - row) * kRowBytes);
}

// Palette 1 is the only one: 8 tiles of 16 rows of 64 bytes.
static const char* load_config(const uint8_t* memory) {
  if (memory[0] == 0) {
    memset(&tiles, 0, sizeof tiles);
    return NULL;
  }
  if (memory[0] != 1) return "there is no such palette";
  for (int i = 2; i < kConfigBytes; ++i) {
    bool used = (i >= 16 && i < 16 + 2 * kTiles) || (i >= 48 && i < 48 + kTiles);
    if (!used && memory[i]) return "a reserved byte of the configuration isn't 0";
  }
  int rows[kTiles], bytes[kTiles];
  for (int tile = 0; tile < kTiles; ++tile) {
    bytes[tile] = memory[16 + 2 * tile] | memory[17 + 2 * tile] << 8;
    rows[tile] = memory[48 + tile];
    if (rows[tile] > kRows) return "a tile has more than 16 rows";
    if (bytes[tile] > kRowBytes) return "a tile's rows have more than 64 bytes";
    if (!rows[tile] != !bytes[tile]) return "a tile has rows without bytes, or bytes without rows";
  }
  memset(&tiles, 0, sizeof tiles);
  memcpy(tiles.rows, rows, sizeof rows);
  memcpy(tiles.bytes, bytes, sizeof bytes);
  tiles.start_row = memory[1];
  tiles.configured = true;
  return NULL;
}

static void store_config(uint8_t* memory) {
  memset(memory, 0, kConfigBytes);
  if (!tiles.configured) return;
  memory[0] = 1;
  memory[1] = (uint8_t)tiles.start_row;
  for (int tile = 0; tile < kTiles; ++tile) {
    memory[16 + 2 * tile] = (uint8_t)tiles.bytes[tile];
    memory[48 + tile] = (uint8_t)tiles.rows[tile];
  }
}

static const char* check_tile(int tile) {
  if (!tiles.configured) return "tiles aren't configured";
  return tiles.rows[tile] ? NULL : "the tile has no rows";
}

static const char* check_move(int tile) {
  const char* wrong = check_tile(tile);
  if (wrong) return wrong;
  return tiles.start_row < tiles.rows[tile] ? NULL : "the start row is beyond the tile";
}

static void load(int tile, const uint8_t* address, int64_t stride) {
  size_t bytes = (size_t)tiles.bytes[tile];
  zero_rows_from(tile, tiles.start_row);
  for (int row = tiles.start_row; row < tiles.rows[tile]; ++row) {
    memcpy(tiles.data[tile][row], address + row * stride, bytes);
  }
}

static void store(int tile, uint8_t* address, int64_t stride) {
  size_t bytes = (size_t)tiles.bytes[tile];
  for (int row = tiles.start_row; row < tiles.rows[tile]; ++row) {
    memcpy(address + row * stride, tiles.data[tile][row], bytes);
  }
}

static const char* check_product(int sum, int left, int right) {
  if (sum == left || left == right || sum == right) return "the three tiles aren't different ones";
  const int all[] = {sum, left, right};
  for (int i = 0; i < 3; ++i) {
    const char* wrong = check_tile(all[i]);
    if (wrong) return wrong;
    if (tiles.bytes[all[i]] % 4) return "a tile's rows aren't whole double words";
  }
  if (tiles.rows[sum] != tiles.rows[left]) return "sum and left factor differ in rows";
  if (tiles.bytes[sum] != tiles.bytes[right]) return "sum and right factor differ in columns";
  if (tiles.bytes[left] / 4 != tiles.rows[right]) return "the factors don't fit each other";
  return NULL;
}

// Rows of the sum beyond its rows are zero afterwards, as are columns beyond its columns.
static void trim(int sum) {
  for (int row = 0; row < tiles.rows[sum]; ++row) {
    memset(tiles.data[sum][row] + tiles.bytes[sum], 0, (size_t)(kRowBytes - tiles.bytes[sum]));
  }
  zero_rows_from(sum, tiles.rows[sum]);
}

// Four bytes of a double word, widened.
static void widen(const uint8_t* bytes, bool is_signed, int32_t* out) {
  for (int i = 0; i < 4; ++i) out[i] = is_signed ? (int8_t)bytes[i] : bytes[i];
}

static void integer_product(int sum, int left, int right, bool left_signed, bool right_signed) {
  const int depth = tiles.bytes[left] / 4, columns = tiles.bytes[sum] / 4;
  int32_t factors[kRows][4][kRowBytes / 4] = {{{0}}};
  for (int k = 0; k < depth; ++k) {
    for (int n = 0; n < columns; ++n) {
      int32_t values[4];
      widen(tiles.data[right][k] + 4 * n, right_signed, values);
      for (int i = 0; i < 4; ++i) factors[k][i][n] = values[i];
    }
  }
  for (int m = 0; m < tiles.rows[sum]; ++m) {
    // Sums wrap around.
    uint32_t total[kRowBytes / 4];
    memcpy(total, tiles.data[sum][m], sizeof total);
    for (int k = 0; k < depth; ++k) {
      int32_t values[4];
      widen(tiles.data[left][m] + 4 * k, left_signed, values);
      for (int i = 0; i < 4; ++i) {
        for (int n = 0; n < kRowBytes / 4; ++n) total[n] += (uint32_t)(values[i] * factors[k][i][n]);
      }
    }
    memcpy(tiles.data[sum][m], total, sizeof total);
  }
  trim(sum);
}

// The products of even and of odd elements are summed apart, each by fused multiply-add, and both
// sums together are added to the tile. Denormals are zero, before and after every operation.
static void float_product(int sum, int left, int right) {
  enum { kFlushToZero = 0x8000, kDenormalsAreZero = 0x0040, kMasked = 0x1f80 };
  _mm_setcsr(kFlushToZero | kDenormalsAreZero | kMasked);
  const int depth = tiles.bytes[left] / 4;
  const __m256i high = _mm256_set1_epi32((int)0xffff0000u);
  __m256 factors[kRows][2][2];  // [pair of k][even, odd][half of the columns]
  for (int k = 0; k < depth; ++k) {
    for (int half = 0; half < 2; ++half) {
      __m256i pairs = _mm256_load_si256((const __m256i*)tiles.data[right][k] + half);
      factors[k][0][half] = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
      factors[k][1][half] = _mm256_castsi256_ps(_mm256_and_si256(pairs, high));
    }
  }
  for (int m = 0; m < tiles.rows[sum]; ++m) {
    __m256 even[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    __m256 odd[2] = {_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int k = 0; k < depth; ++k) {
      uint32_t pair;
      memcpy(&pair, tiles.data[left][m] + 4 * k, sizeof pair);
      __m256 first = _mm256_castsi256_ps(_mm256_set1_epi32((int)(pair << 16)));
      __m256 second = _mm256_castsi256_ps(_mm256_set1_epi32((int)(pair & 0xffff0000u)));
      for (int half = 0; half < 2; ++half) {
        even[half] = _mm256_fmadd_ps(first, factors[k][0][half], even[half]);
        odd[half] = _mm256_fmadd_ps(second, factors[k][1][half], odd[half]);
      }
    }
    for (int half = 0; half < 2; ++half) {
      float* place = (float*)tiles.data[sum][m] + 8 * half;
      __m256 both = _mm256_add_ps(even[half], odd[half]);
      _mm256_store_ps(place, _mm256_add_ps(_mm256_load_ps(place), both));
    }
  }
  trim(sum);
}

static const char* product(const Instruction* it) {
  const char* wrong = check_product(it->tile, it->left, it->right);
  if (wrong) return wrong;
  if (it->operation == kBrainFloat) {
    float_product(it->tile, it->left, it->right);
  } else {
    bool left_signed = it->operation == kSignedSigned || it->operation == kSignedUnsigned;
    bool right_signed = it->operation == kSignedSigned || it->operation == kUnsignedSigned;
    integer_product(it->tile, it->left, it->right, left_signed, right_signed);
  }
  return NULL;
}

const char* edgec_amx_execute(const Instruction* it) {
  const char* wrong = NULL;
  switch (it->operation) {
    case kLoadConfig:
      return load_config(it->address);
    case kStoreConfig:
      store_config(it->address);
      return NULL;
    case kRelease:
      memset(&tiles, 0, sizeof tiles);
      return NULL;
    case kZero:
      wrong = check_tile(it->tile);
      if (!wrong) zero_rows_from(it->tile, 0);
      break;
    case kLoad:
    case kLoadOnce:
      wrong = check_move(it->tile);
      if (!wrong) load(it->tile, it->address, it->stride);
      break;
    case kStore:
      wrong = check_move(it->tile);
      if (!wrong) store(it->tile, it->address, it->stride);
      break;
    default:
      wrong = product(it);
  }
  // What a fault would have left for the instruction's second try.
  if (!wrong) tiles.start_row = 0;
  return wrong;
}
