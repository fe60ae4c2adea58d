// Adds in registers, so that nothing but the core sets the speed.

#include <stdint.h>

#define KEEP(sum) __asm__ volatile("" : "+r"(sum))

// Eight additions a round, none of which waits for another.
uint64_t add_all(uint64_t rounds) {
    uint64_t a = 0, b = 0, c = 0, d = 0, e = 0, f = 0, g = 0, h = 0;
    for (; rounds; --rounds) {
        a += rounds; b += rounds; c += rounds; d += rounds;
        e += rounds; f += rounds; g += rounds; h += rounds;
        KEEP(a); KEEP(b); KEEP(c); KEEP(d); KEEP(e); KEEP(f); KEEP(g); KEEP(h);
    }
    return a + b + c + d + e + f + g + h;
}
