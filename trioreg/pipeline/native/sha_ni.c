/* SHA-256 with the SHA extensions of x86: one stream, or two or four whose instructions alternate. */
#include "lanes.h"

#if TRIOREG_X86
#include <immintrin.h>

#define SHA_NI __attribute__((target("sha,sse4.1,ssse3")))
#define EACH for (int s = 0; s < STREAMS; s++)

/* Four rounds, of every stream in turn: sha256rnds2 waits four cycles for its own result, so a
 * second stream runs in the gaps of the first. From the fifth group on the words are scheduled. */
#define SHA_NI_GROUP(g)                                                                           \
    EACH {                                                                                        \
        __m128i *m = w[s];                                                                        \
        if (g >= 4)                                                                               \
            m[g & 3] = _mm_sha256msg2_epu32(                                                      \
                _mm_add_epi32(_mm_sha256msg1_epu32(m[g & 3], m[(g + 1) & 3]),                     \
                              _mm_alignr_epi8(m[(g + 3) & 3], m[(g + 2) & 3], 4)),                \
                m[(g + 3) & 3]);                                                                  \
        __m128i k = _mm_add_epi32(m[g & 3], _mm_loadu_si128((const __m128i *)(sha256_k + 4 * g))); \
        cdgh[s] = _mm_sha256rnds2_epu32(cdgh[s], abef[s], k);                                     \
        abef[s] = _mm_sha256rnds2_epu32(abef[s], cdgh[s], _mm_shuffle_epi32(k, 0x0e));            \
    }

/* The instructions want the words as ABEF and CDGH. */
#define SHA_NI_BODY(WORDS, DATA)                                                                  \
    const __m128i swap = _mm_set_epi32(0x0c0d0e0f, 0x08090a0b, 0x04050607, 0x00010203);           \
    __m128i abef[STREAMS], cdgh[STREAMS];                                                         \
    EACH {                                                                                        \
        __m128i low = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)WORDS), 0xb1);           \
        __m128i high = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(WORDS + 4)), 0x1b);    \
        abef[s] = _mm_alignr_epi8(low, high, 8);                                                  \
        cdgh[s] = _mm_blend_epi16(high, low, 0xf0);                                               \
    }                                                                                             \
    for (size_t done = 0; done < 64 * blocks; done += 64) {                                       \
        __m128i w[STREAMS][4], abef_before[STREAMS], cdgh_before[STREAMS];                        \
        EACH {                                                                                    \
            abef_before[s] = abef[s];                                                             \
            cdgh_before[s] = cdgh[s];                                                             \
            for (int i = 0; i < 4; i++)                                                           \
                w[s][i] = _mm_shuffle_epi8(                                                       \
                    _mm_loadu_si128((const __m128i *)(DATA + done + 16 * i)), swap);              \
        }                                                                                         \
        SHA_NI_GROUP(0) SHA_NI_GROUP(1) SHA_NI_GROUP(2) SHA_NI_GROUP(3)                           \
        SHA_NI_GROUP(4) SHA_NI_GROUP(5) SHA_NI_GROUP(6) SHA_NI_GROUP(7)                           \
        SHA_NI_GROUP(8) SHA_NI_GROUP(9) SHA_NI_GROUP(10) SHA_NI_GROUP(11)                         \
        SHA_NI_GROUP(12) SHA_NI_GROUP(13) SHA_NI_GROUP(14) SHA_NI_GROUP(15)                       \
        EACH {                                                                                    \
            abef[s] = _mm_add_epi32(abef[s], abef_before[s]);                                     \
            cdgh[s] = _mm_add_epi32(cdgh[s], cdgh_before[s]);                                     \
        }                                                                                         \
    }                                                                                             \
    EACH {                                                                                        \
        __m128i low = _mm_shuffle_epi32(abef[s], 0x1b), high = _mm_shuffle_epi32(cdgh[s], 0xb1);  \
        _mm_storeu_si128((__m128i *)WORDS, _mm_blend_epi16(low, high, 0xf0));                     \
        _mm_storeu_si128((__m128i *)(WORDS + 4), _mm_alignr_epi8(high, low, 8));                  \
    }

#define STREAMS 1
SHA_NI void sha256_ni(uint32_t h[8], const uint8_t *data, size_t blocks) {
    SHA_NI_BODY(h, data)
}
#undef STREAMS

#define STREAMS 2
SHA_NI void lanes_sha_ni_2(uint32_t *const h[], const uint8_t *const data[], size_t blocks) {
    SHA_NI_BODY(h[s], data[s])
}
#undef STREAMS

#define STREAMS 4
SHA_NI void lanes_sha_ni_4(uint32_t *const h[], const uint8_t *const data[], size_t blocks) {
    SHA_NI_BODY(h[s], data[s])
}
#undef STREAMS

#endif
