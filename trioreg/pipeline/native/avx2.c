/* SHA-256 of 8 streams in AVX2 registers. */
#include "lanes.h"

#if TRIOREG_X86
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))

/* Two 8 × 8 transposes of words, one per half of the block. */
static inline AVX2 __attribute__((always_inline)) void
load_message_8(__m256i w[16], const uint8_t *const data[], size_t at) {
    const __m256i swap = _mm256_broadcastsi128_si256(
        _mm_set_epi32(0x0c0d0e0f, 0x08090a0b, 0x04050607, 0x00010203));
    for (int half = 0; half < 2; half++) {
        __m256i r[8], t[8];
        for (int i = 0; i < 8; i++)
            r[i] = _mm256_shuffle_epi8(
                _mm256_loadu_si256((const __m256i *)(data[i] + at + 32 * half)), swap);
        for (int i = 0; i < 8; i += 2) {
            t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
            t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
        }
        for (int i = 0; i < 8; i += 4) {
            r[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
            r[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
            r[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
            r[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
        }
        for (int i = 0; i < 4; i++) {
            w[8 * half + i] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x20);
            w[8 * half + i + 4] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x31);
        }
    }
}

#define WORD_BITS 32
#define LANES 8
#define VECTOR __m256i
#define TARGET AVX2
#define NAME lanes_avx2
#define ADD _mm256_add_epi32
#define ROR(x, n) _mm256_or_si256(_mm256_srli_epi32(x, n), _mm256_slli_epi32(x, 32 - (n)))
#define SHR _mm256_srli_epi32
#define XOR3(x, y, z) _mm256_xor_si256(_mm256_xor_si256(x, y), z)
#define CHOOSE(x, y, z) _mm256_xor_si256(z, _mm256_and_si256(x, _mm256_xor_si256(y, z)))
#define MAJORITY(x, y, z) \
    _mm256_or_si256(_mm256_and_si256(x, y), _mm256_and_si256(z, _mm256_or_si256(x, y)))
#define BROADCAST(k) _mm256_set1_epi32((int)(k))
#define LOAD_MESSAGE load_message_8
#define LOAD(from) _mm256_load_si256((const __m256i *)(from))
#define STORE(to, value) _mm256_store_si256((__m256i *)(to), value)
#include "rounds.h"

#endif
