// GCC 12 and older tell their optimizer that _tile_loadconfig reads only the first bytes of the
// configuration, so that stores to the others are dropped and the first AMX tile faults.

#if defined(__GNUC__) && !defined(__clang__) && __GNUC__ < 13 && defined(__AMX_TILE__)
#include <immintrin.h>
#define _tile_loadconfig(config)                                        \
    do {                                                                \
        __asm__ volatile("" : : "r"(config) : "memory");                \
        _tile_loadconfig(config);                                       \
    } while (0)
#endif
