/* SHA-256 of 16 streams in AVX-512 registers. */
#include "lanes.h"

#if TRIOREG_X86
#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f,avx512bw,avx512vl")))

/* A 16 × 16 transpose of words: pairs of rows by 32, then 64, then 128 bits. */
static inline AVX512 __attribute__((always_inline)) void
load_message_16(__m512i w[16], const uint8_t *const data[], size_t at) {
    const __m512i swap = _mm512_broadcast_i32x4(
        _mm_set_epi32(0x0c0d0e0f, 0x08090a0b, 0x04050607, 0x00010203));
    __m512i t[16];
    for (int i = 0; i < 16; i++)
        w[i] = _mm512_loadu_si512(data[i] + at);
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(w[i], w[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(w[i], w[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        w[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        w[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        w[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        w[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(w[i], w[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(w[i], w[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(w[i + 8], w[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(w[i + 8], w[i + 12], 0xdd);
    }
    for (int i = 0; i < 4; i++) {
        w[i] = _mm512_shuffle_epi8(_mm512_shuffle_i32x4(t[i], t[i + 8], 0x88), swap);
        w[i + 4] = _mm512_shuffle_epi8(_mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0x88), swap);
        w[i + 8] = _mm512_shuffle_epi8(_mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd), swap);
        w[i + 12] = _mm512_shuffle_epi8(_mm512_shuffle_i32x4(t[i + 4], t[i + 12], 0xdd), swap);
    }
}

#define WORD_BITS 32
#define LANES 16
#define VECTOR __m512i
#define TARGET AVX512
#define NAME lanes_avx512
#define ADD _mm512_add_epi32
#define ROR _mm512_ror_epi32
#define SHR _mm512_srli_epi32
#define XOR3(x, y, z) _mm512_ternarylogic_epi32(x, y, z, 0x96)
#define CHOOSE(x, y, z) _mm512_ternarylogic_epi32(x, y, z, 0xca)
#define MAJORITY(x, y, z) _mm512_ternarylogic_epi32(x, y, z, 0xe8)
#define BROADCAST(k) _mm512_set1_epi32((int)(k))
#define LOAD_MESSAGE load_message_16
#define LOAD(from) _mm512_load_si512(from)
#define STORE(to, value) _mm512_store_si512(to, value)
#include "rounds.h"

#endif
