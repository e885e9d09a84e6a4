/* Which code compresses the blocks of a lone stream.
 *
 * Rule: SHA-NI first (as fast as OpenSSL's use of it, and no pointer from outside), then OpenSSL
 * (assembler for every CPU) if its functions were handed in, then portable C. SHA-512 has no
 * instructions here: OpenSSL, then portable C. All of them give the same words.
 */
#include "cpu.h"
#include "sha.h"

#include <stdatomic.h>
#include <string.h>

/* --- OpenSSL's contexts, as its headers have had them since 0.9.8 (openssl/sha.h) --- */

/* In one union, zeroed whole: so addresses given in the wrong order fail the check below instead of
 * writing past a smaller context. */
union openssl_context {
    struct {
        uint32_t h[8], low, high, data[16];
        unsigned held, digest_size;
    } sha256;
    struct {
        uint64_t h[8], low, high, data[16];
        unsigned held, digest_size;
    } sha512;
};

typedef int openssl_update(union openssl_context *, const void *, size_t);

static openssl_update *_Atomic update256;
static openssl_update *_Atomic update512;

static void sha256_openssl(uint32_t h[8], const uint8_t *data, size_t blocks) {
    union openssl_context context;
    memset(&context, 0, sizeof context);
    memcpy(context.sha256.h, h, sizeof context.sha256.h);
    context.sha256.digest_size = 32;
    update256(&context, data, 64 * blocks);
    memcpy(h, context.sha256.h, sizeof context.sha256.h);
}

static void sha512_openssl(uint64_t h[8], const uint8_t *data, size_t blocks) {
    union openssl_context context;
    memset(&context, 0, sizeof context);
    memcpy(context.sha512.h, h, sizeof context.sha512.h);
    context.sha512.digest_size = 64;
    update512(&context, data, 128 * blocks);
    memcpy(h, context.sha512.h, sizeof context.sha512.h);
}

/* --- the choice --- */

static sha256_function *_Atomic chosen256 = sha256_portable;
static sha512_function *_Atomic chosen512 = sha512_portable;

void sha256_single(uint32_t h[8], const uint8_t *data, size_t blocks) {
    chosen256(h, data, blocks);
}

void sha512_single(uint64_t h[8], const uint8_t *data, size_t blocks) {
    chosen512(h, data, blocks);
}

const char *single_name(enum sha_algorithm algorithm) {
    if (algorithm == SHA512)
        return chosen512 == sha512_openssl ? "openssl" : "portable";
    if (chosen256 == sha256_openssl)
        return "openssl";
    return chosen256 == sha256_portable ? "portable" : "sha-ni";
}

bool single_use(const char *name) {
    bool any = name == NULL;
#if TRIOREG_X86
    if ((any || strcmp(name, "sha-ni") == 0) && cpu_has_sha_ni()) {
        chosen256 = sha256_ni;
        chosen512 = update512 != NULL ? sha512_openssl : sha512_portable;
        return true;
    }
#endif
    if ((any || strcmp(name, "openssl") == 0) && update256 != NULL) {
        chosen256 = sha256_openssl;
        chosen512 = sha512_openssl;
        return true;
    }
    if (any || strcmp(name, "portable") == 0) {
        chosen256 = sha256_portable;
        chosen512 = sha512_portable;
        return true;
    }
    return false;
}

/* Both functions over two blocks, beside the portable code. */
static bool openssl_is_right(void) {
    uint8_t data[2 * SHA_BLOCK_MAX];
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (uint8_t)(7 * i);
    struct sha theirs, ours;
    sha_begin(&theirs, SHA256), sha_begin(&ours, SHA256);
    sha256_openssl(theirs.h32, data, sizeof data / 64);
    sha256_portable(ours.h32, data, sizeof data / 64);
    if (memcmp(theirs.h32, ours.h32, sizeof ours.h32) != 0)
        return false;
    sha_begin(&theirs, SHA512), sha_begin(&ours, SHA512);
    sha512_openssl(theirs.h64, data, sizeof data / 128);
    sha512_portable(ours.h64, data, sizeof data / 128);
    return memcmp(theirs.h64, ours.h64, sizeof ours.h64) == 0;
}

bool single_set_openssl(uintptr_t address256, uintptr_t address512) {
    openssl_update *before256 = update256, *before512 = update512;
    if ((address256 == 0) != (address512 == 0))
        return false;
    update256 = (openssl_update *)address256;
    update512 = (openssl_update *)address512;
    if (address256 != 0 && !openssl_is_right()) {
        update256 = before256;
        update512 = before512;
        return false;
    }
    single_use(NULL);
    return true;
}
