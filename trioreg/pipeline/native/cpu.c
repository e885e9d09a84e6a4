/* What the processor can do and the system lets us use, asked of both (Intel SDM volume 1, 13.3 and 14.3).
 *
 * Not by __builtin_cpu_supports: its table is the compiler's runtime's, and where that leaves it empty (zig
 * cc, with which wheels are built) every answer is no, and nobody notices but the stopwatch.
 */
#include "cpu.h"

#if TRIOREG_X86
#include <cpuid.h>

enum { YMM = 0x06, ZMM = 0xe6 }; /* state that the system saves: XCR0 */

static unsigned features7(void) {
    unsigned a, b = 0, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) ? b : 0;
}

static unsigned features1(void) {
    unsigned a, b, c = 0, d;
    return __get_cpuid(1, &a, &b, &c, &d) ? c : 0;
}

static bool saves(unsigned state) {
    if (!(features1() & bit_OSXSAVE))
        return false;
    unsigned low, high;
    __asm__ volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (low & state) == state;
}

bool cpu_has_sha_ni(void) {
    unsigned needed = bit_SSSE3 | bit_SSE4_1;
    return (features1() & needed) == needed && features7() & bit_SHA;
}

bool cpu_has_avx2(void) { return saves(YMM) && features1() & bit_AVX && features7() & bit_AVX2; }

bool cpu_has_avx512(void) {
    unsigned needed = bit_AVX512F | bit_AVX512BW | bit_AVX512VL;
    return saves(ZMM) && (features7() & needed) == needed;
}
#else
bool cpu_has_sha_ni(void) { return false; }
bool cpu_has_avx2(void) { return false; }
bool cpu_has_avx512(void) { return false; }
#endif
