/* SHA-256 and SHA-512 of one stream in plain C: the rounds with one lane of one word. */
#include "sha.h"

#define LANES 1
#define TARGET static
#define ADD(x, y) ((x) + (y))
#define SHR(x, n) ((x) >> (n))
#define XOR3(x, y, z) ((x) ^ (y) ^ (z))
#define CHOOSE(x, y, z) ((z) ^ ((x) & ((y) ^ (z))))
#define MAJORITY(x, y, z) (((x) & (y)) | ((z) & ((x) | (y))))
#define BROADCAST(k) (k)
#define LOAD(from) ((from)[0])
#define STORE(to, value) ((to)[0] = (value))

static uint32_t load32(const uint8_t *p) {
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static void load_message_32(uint32_t w[16], const uint8_t *const data[], size_t at) {
    for (int i = 0; i < 16; i++)
        w[i] = load32(data[0] + at + 4 * i);
}

static void load_message_64(uint64_t w[16], const uint8_t *const data[], size_t at) {
    for (int i = 0; i < 16; i++)
        w[i] = (uint64_t)load32(data[0] + at + 8 * i) << 32 | load32(data[0] + at + 8 * i + 4);
}

#define WORD_BITS 32
#define VECTOR uint32_t
#define NAME one_lane_32
#define ROR(x, n) ((x) >> (n) | (x) << (32 - (n)))
#define LOAD_MESSAGE load_message_32
#include "rounds.h"

#define WORD_BITS 64
#define VECTOR uint64_t
#define NAME one_lane_64
#define ROR(x, n) ((x) >> (n) | (x) << (64 - (n)))
#define LOAD_MESSAGE load_message_64
#include "rounds.h"

void sha256_portable(uint32_t h[8], const uint8_t *data, size_t blocks) {
    one_lane_32(&h, &data, blocks);
}

void sha512_portable(uint64_t h[8], const uint8_t *data, size_t blocks) {
    one_lane_64(&h, &data, blocks);
}
