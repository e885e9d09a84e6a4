/* Worker threads that hash and write. Knows nothing of Python. */
#ifndef TRIOREG_POOL_H
#define TRIOREG_POOL_H

#include "plan.h"

#include <sys/types.h>

struct job;

/* A digest state and its jobs in the order they were submitted, oldest unreported first. Zero all
 * but `sha` to begin. The queue belongs to the pool's lock. */
struct stream {
    struct sha sha;
    struct job *oldest, *newest, *next_to_hash;
    struct stream *next_ready;
};

/* One piece of one stream. The caller owns it and everything it points at, and keeps all of it
 * until the job comes back from pool_completed. */
struct job {
    struct stream *stream;
    const uint8_t *data;
    size_t size;
    int fd; /* below zero: nothing to write */
    int direct; /* the same file opened with O_DIRECT, or below zero */
    off_t offset;
    off_t reserve; /* bytes from offset on to allocate before, without changing the file's size */
    bool want_state;
    /* filled by the pool */
    struct job *next; /* in its stream, then among the completed */
    bool done;
    bool hashed; /* its bytes are in the state: it is being written, or has ended */
    int error; /* errno of the write, ECANCELED if not begun, or 0 */
    size_t saved_size;
    uint8_t saved[SHA_SAVED_MAX];
};

enum { BATCH_SIZES = 7 }; /* 2 to the power of the last is BATCH_MAX */

struct pool_statistics {
    uint64_t batches, jobs, bytes, wakeups;
    uint64_t waiting, hashing, writing; /* jobs not begun; in the hands of a worker */
    uint64_t completed;                 /* jobs not collected */
    uint64_t sizes[BATCH_SIZES]; /* batches of at most 1, 2, 4 … BATCH_MAX jobs */
    struct tally tally;
};

struct pool;

/* NULL with errno set. threads >= 1, 1 <= batch <= BATCH_MAX. */
struct pool *pool_open(int threads, int batch, const struct plan *plan);
/* Readable while there is something in pool_completed. Open until pool_free. */
int pool_fileno(const struct pool *pool);
/* False: the pool is closed. */
bool pool_submit(struct pool *pool, struct job *job);
/* All jobs that have ended, linked by `next`; those of one stream in the order of submission. */
struct job *pool_completed(struct pool *pool);
/* Puts a chain from pool_completed back in front. */
void pool_uncollect(struct pool *pool, struct job *first);
/* Waits for jobs that have begun, ends the threads; the others complete with ECANCELED. May be
 * called by several threads and again: each returns when it is done. */
void pool_close(struct pool *pool);
void pool_free(struct pool *pool); /* after pool_close, nobody else using it */
struct pool_statistics pool_look(struct pool *pool);

#endif
