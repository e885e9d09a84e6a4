/* The rounds of SHA-2 (FIPS 180-4, section 6) over LANES independent streams, word t of every
 * stream in one VECTOR. Included once per word size and vector width.
 *
 * The includer defines: NAME, TARGET, LANES, VECTOR, WORD_BITS (32: SHA-256, 64: SHA-512), ADD, ROR,
 * SHR, XOR3, CHOOSE, MAJORITY, BROADCAST, LOAD, STORE, and LOAD_MESSAGE(w, data, at), which fills 16
 * vectors from the block at byte `at` of every stream. All streams advance by the same number of
 * blocks. Words are transposed on the way in and out, which costs less than one block.
 */
#if WORD_BITS == 32
#define WORD uint32_t
#define ROUNDS 64
#define K sha256_k
#define SUM0(x) XOR3(ROR(x, 2), ROR(x, 13), ROR(x, 22))
#define SUM1(x) XOR3(ROR(x, 6), ROR(x, 11), ROR(x, 25))
#define SIGMA0(x) XOR3(ROR(x, 7), ROR(x, 18), SHR(x, 3))
#define SIGMA1(x) XOR3(ROR(x, 17), ROR(x, 19), SHR(x, 10))
#else
#define WORD uint64_t
#define ROUNDS 80
#define K sha512_k
#define SUM0(x) XOR3(ROR(x, 28), ROR(x, 34), ROR(x, 39))
#define SUM1(x) XOR3(ROR(x, 14), ROR(x, 18), ROR(x, 41))
#define SIGMA0(x) XOR3(ROR(x, 1), ROR(x, 8), SHR(x, 7))
#define SIGMA1(x) XOR3(ROR(x, 19), ROR(x, 61), SHR(x, 6))
#endif

#define ROUND(a, b, c, d, e, f, g, h, i)                                                           \
    {                                                                                              \
        VECTOR one = ADD(ADD(h, ADD(BROADCAST(K[t + i]), w[i])), ADD(CHOOSE(e, f, g), SUM1(e)));   \
        d = ADD(d, one);                                                                           \
        h = ADD(one, ADD(MAJORITY(a, b, c), SUM0(a)));                                             \
    }
#define SCHEDULE(i)                                                                                \
    w[i] = ADD(ADD(w[i], w[((i) + 9) & 15]),                                                       \
               ADD(SIGMA0(w[((i) + 1) & 15]), SIGMA1(w[((i) + 14) & 15])));
#define GIVEN(i)
#define EIGHT_ROUNDS(i, WORD_OF)                                                                   \
    WORD_OF(i) ROUND(a, b, c, d, e, f, g, h, i)                                                    \
    WORD_OF(i + 1) ROUND(h, a, b, c, d, e, f, g, i + 1)                                            \
    WORD_OF(i + 2) ROUND(g, h, a, b, c, d, e, f, i + 2)                                            \
    WORD_OF(i + 3) ROUND(f, g, h, a, b, c, d, e, i + 3)                                            \
    WORD_OF(i + 4) ROUND(e, f, g, h, a, b, c, d, i + 4)                                            \
    WORD_OF(i + 5) ROUND(d, e, f, g, h, a, b, c, i + 5)                                            \
    WORD_OF(i + 6) ROUND(c, d, e, f, g, h, a, b, i + 6)                                            \
    WORD_OF(i + 7) ROUND(b, c, d, e, f, g, h, a, i + 7)

TARGET void NAME(WORD *const words[], const uint8_t *const data[], size_t blocks) {
    _Alignas(64) WORD transposed[8][LANES];
    for (int lane = 0; lane < LANES; lane++)
        for (int i = 0; i < 8; i++)
            transposed[i][lane] = words[lane][i];
    VECTOR state[8], w[16];
    for (int i = 0; i < 8; i++)
        state[i] = LOAD(transposed[i]);

    const size_t block = 16 * sizeof(WORD);
    for (size_t at = 0; at < block * blocks; at += block) {
        VECTOR a = state[0], b = state[1], c = state[2], d = state[3];
        VECTOR e = state[4], f = state[5], g = state[6], h = state[7];
        LOAD_MESSAGE(w, data, at);
        int t = 0;
        EIGHT_ROUNDS(0, GIVEN) EIGHT_ROUNDS(8, GIVEN)
        for (t = 16; t < ROUNDS; t += 16) {
            EIGHT_ROUNDS(0, SCHEDULE) EIGHT_ROUNDS(8, SCHEDULE)
        }
        state[0] = ADD(state[0], a), state[1] = ADD(state[1], b);
        state[2] = ADD(state[2], c), state[3] = ADD(state[3], d);
        state[4] = ADD(state[4], e), state[5] = ADD(state[5], f);
        state[6] = ADD(state[6], g), state[7] = ADD(state[7], h);
    }

    for (int i = 0; i < 8; i++)
        STORE(transposed[i], state[i]);
    for (int lane = 0; lane < LANES; lane++)
        for (int i = 0; i < 8; i++)
            words[lane][i] = transposed[i][lane];
}

#undef WORD
#undef ROUNDS
#undef K
#undef SUM0
#undef SUM1
#undef SIGMA0
#undef SIGMA1
#undef ROUND
#undef SCHEDULE
#undef GIVEN
#undef EIGHT_ROUNDS
#undef NAME
#undef VECTOR
#undef WORD_BITS
#undef ROR
#undef LOAD_MESSAGE
