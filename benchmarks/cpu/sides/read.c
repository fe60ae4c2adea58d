// Reads a buffer once, eight vectors at a time, so that nothing but the memory sets the speed.

#include <stddef.h>
#include <stdint.h>

#define LANES 64

// Args: words, a multiple of LANES, at an address that is a multiple of 64.
uint64_t read_all(const uint64_t *words, size_t count) {
    uint64_t sums[LANES] = {0};
    for (size_t start = 0; start < count; start += LANES)
        for (size_t lane = 0; lane < LANES; ++lane) sums[lane] += words[start + lane];
    uint64_t sum = 0;
    for (size_t lane = 0; lane < LANES; ++lane) sum += sums[lane];
    return sum;
}
