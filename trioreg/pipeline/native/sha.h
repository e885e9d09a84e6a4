/* The resumable digest state of one stream, and the compression functions under it.
 *
 * Owns: what a state is (FIPS 180-4 words, bytes so far, the unfinished block) and its saved form.
 * Rule: a saved state names no engine. Words big-endian, then the length in bytes as 16 bytes
 * big-endian, then the tail (length modulo the block size). Nothing here knows Python or threads.
 */
#ifndef TRIOREG_SHA_H
#define TRIOREG_SHA_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* -DTRIOREG_X86=0 builds what other processors get. */
#ifndef TRIOREG_X86
#if defined(__x86_64__) && defined(__GNUC__)
#define TRIOREG_X86 1
#else
#define TRIOREG_X86 0
#endif
#endif

enum { SHA_BLOCK_MAX = 128, SHA_DIGEST_MAX = 64, SHA_SAVED_MAX = 64 + 16 + SHA_BLOCK_MAX - 1 };

/* SHA-256 counts bits in 64 bits, so 2^61 bytes are too many; no blob comes near. */
#define SHA_LENGTH_MAX ((UINT64_C(1) << 61) - 1)

enum sha_algorithm { SHA256, SHA512 };

struct sha {
    enum sha_algorithm algorithm;
    union {
        uint32_t h32[8];
        uint64_t h64[8];
    };
    uint64_t length;
    uint8_t tail[SHA_BLOCK_MAX];
};

/* Whole blocks that a stream still has to compress, before anything else is done to its state. */
struct feed {
    struct sha *sha;
    const uint8_t *data;
    size_t blocks;
};

size_t sha_block_size(enum sha_algorithm algorithm);
size_t sha_digest_size(enum sha_algorithm algorithm);

void sha_begin(struct sha *sha, enum sha_algorithm algorithm);
/* Takes the bytes up to a block boundary and the tail; the whole blocks between are left to the
 * caller as a feed, so that they may run in lanes beside other streams. */
struct feed sha_prepare(struct sha *sha, const uint8_t *data, size_t size);
void sha_finish_feed(struct feed feed);
void sha_update(struct sha *sha, const uint8_t *data, size_t size);
size_t sha_digest(const struct sha *sha, uint8_t digest[SHA_DIGEST_MAX]);
uint64_t sha_length(const struct sha *sha);
size_t sha_save(const struct sha *sha, uint8_t saved[SHA_SAVED_MAX]);
/* NULL, or why these bytes are not a state. */
const char *sha_load(struct sha *sha, enum sha_algorithm algorithm, const uint8_t *saved,
                     size_t size);

/* --- whole blocks of one stream --- */

typedef void sha256_function(uint32_t h[8], const uint8_t *data, size_t blocks);
typedef void sha512_function(uint64_t h[8], const uint8_t *data, size_t blocks);

sha256_function sha256_portable; /* portable.c */
sha512_function sha512_portable;
#if TRIOREG_X86
sha256_function sha256_ni; /* sha_ni.c */
#endif

/* --- which of them serves (single.c) --- */

sha256_function sha256_single;
sha512_function sha512_single;
/* "sha-ni", "openssl" or "portable"; NULL chooses again. False: not to be had, nothing changes. */
bool single_use(const char *name);
const char *single_name(enum sha_algorithm algorithm);
/* Addresses of SHA256_Update and SHA512_Update, both zero to forget them. False (and no change) if
 * they do not compute what the portable code computes. */
bool single_set_openssl(uintptr_t update256, uintptr_t update512);

/* --- constants (constants.c): roots of the first primes, FIPS 180-4 sections 4.2 and 5.3 --- */

extern const uint32_t sha256_initial[8], sha256_k[64];
extern const uint64_t sha512_initial[8], sha512_k[80];

#endif
