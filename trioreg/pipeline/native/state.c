/* A digest state: begin, feed, digest, save, load. See sha.h for the saved form. */
#include "sha.h"

#include <string.h>

size_t sha_block_size(enum sha_algorithm algorithm) { return algorithm == SHA256 ? 64 : 128; }

size_t sha_digest_size(enum sha_algorithm algorithm) { return algorithm == SHA256 ? 32 : 64; }

uint64_t sha_length(const struct sha *sha) { return __atomic_load_n(&sha->length, __ATOMIC_RELAXED); }

/* Python may ask for the length while a worker hashes; nothing else is read across threads. */
static void set_length(struct sha *sha, uint64_t length) {
    __atomic_store_n(&sha->length, length, __ATOMIC_RELAXED);
}

static void compress(struct sha *sha, const uint8_t *data, size_t blocks) {
    if (sha->algorithm == SHA256)
        sha256_single(sha->h32, data, blocks);
    else
        sha512_single(sha->h64, data, blocks);
}

void sha_begin(struct sha *sha, enum sha_algorithm algorithm) {
    memset(sha, 0, sizeof *sha);
    sha->algorithm = algorithm;
    if (algorithm == SHA256)
        memcpy(sha->h32, sha256_initial, sizeof sha->h32);
    else
        memcpy(sha->h64, sha512_initial, sizeof sha->h64);
}

struct feed sha_prepare(struct sha *sha, const uint8_t *data, size_t size) {
    struct feed feed = {sha, data, 0};
    if (size == 0)
        return feed;
    size_t block = sha_block_size(sha->algorithm);
    size_t held = sha->length % block;
    set_length(sha, sha->length + size);
    if (held > 0) {
        size_t missing = block - held;
        size_t taken = size < missing ? size : missing;
        memcpy(sha->tail + held, data, taken);
        if (taken < missing)
            return feed;
        compress(sha, sha->tail, 1);
        data += taken;
        size -= taken;
    }
    feed.data = data;
    feed.blocks = size / block;
    memcpy(sha->tail, data + feed.blocks * block, size % block);
    return feed;
}

void sha_finish_feed(struct feed feed) {
    if (feed.blocks > 0)
        compress(feed.sha, feed.data, feed.blocks);
}

void sha_update(struct sha *sha, const uint8_t *data, size_t size) {
    sha_finish_feed(sha_prepare(sha, data, size));
}

static void put_big_endian(uint8_t *to, uint64_t value, size_t bytes) {
    for (size_t i = bytes; i-- > 0; value >>= 8)
        to[i] = (uint8_t)value;
}

static uint64_t get_big_endian(const uint8_t *from, size_t bytes) {
    uint64_t value = 0;
    for (size_t i = 0; i < bytes; i++)
        value = value << 8 | from[i];
    return value;
}

static size_t put_words(const struct sha *sha, uint8_t *to) {
    for (size_t i = 0; i < 8; i++)
        if (sha->algorithm == SHA256)
            put_big_endian(to + 4 * i, sha->h32[i], 4);
        else
            put_big_endian(to + 8 * i, sha->h64[i], 8);
    return sha_digest_size(sha->algorithm);
}

/* Padding, FIPS 180-4 section 5.1: a one bit, zeros, the length in bits (8 or 16 bytes). */
size_t sha_digest(const struct sha *sha, uint8_t digest[SHA_DIGEST_MAX]) {
    struct sha last = *sha;
    size_t block = sha_block_size(sha->algorithm);
    size_t held = sha->length % block;
    uint8_t padded[2 * SHA_BLOCK_MAX] = {0};
    memcpy(padded, sha->tail, held);
    padded[held] = 0x80;
    size_t size = held + 1 + block / 8 <= block ? block : 2 * block;
    put_big_endian(padded + size - 8, sha->length * 8, 8);
    compress(&last, padded, size / block);
    return put_words(&last, digest);
}

size_t sha_save(const struct sha *sha, uint8_t saved[SHA_SAVED_MAX]) {
    size_t size = put_words(sha, saved);
    put_big_endian(saved + size, 0, 8);
    put_big_endian(saved + size + 8, sha->length, 8);
    size_t held = sha->length % sha_block_size(sha->algorithm);
    memcpy(saved + size + 16, sha->tail, held);
    return size + 16 + held;
}

const char *sha_load(struct sha *sha, enum sha_algorithm algorithm, const uint8_t *saved,
                     size_t size) {
    size_t words = sha_digest_size(algorithm), block = sha_block_size(algorithm);
    if (size < words + 16)
        return "saved state is too short";
    uint64_t high = get_big_endian(saved + words, 8);
    uint64_t length = get_big_endian(saved + words + 8, 8);
    if (high != 0 || length > SHA_LENGTH_MAX)
        return "saved state claims an impossible length";
    if (size - words - 16 != length % block)
        return "saved state does not end with the tail its length asks for";
    sha_begin(sha, algorithm);
    uint8_t initial[SHA_DIGEST_MAX];
    put_words(sha, initial);
    if (length < block && memcmp(saved, initial, words) != 0)
        return "saved state has words of a block it never finished";
    for (size_t i = 0; i < 8; i++)
        if (algorithm == SHA256)
            sha->h32[i] = (uint32_t)get_big_endian(saved + 4 * i, 4);
        else
            sha->h64[i] = get_big_endian(saved + 8 * i, 8);
    sha->length = length;
    memcpy(sha->tail, saved + words + 16, length % block);
    return NULL;
}
