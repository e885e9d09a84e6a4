/* Worker threads that hash batches of jobs in lanes, write them, and hand them back.
 *
 * Owns: the queue of streams that are ready, and the list of completed jobs; one lock for both,
 * never held while hashing or writing.
 * Rules:
 * - A stream is on the ready list when it has a job to hash and nobody is hashing it. So jobs of
 *   one stream are hashed in order, one at a time, while their writes may overlap the next hash.
 * - A batch is what is ready at the moment: no timer, a lone job runs at once.
 * - A job is reported when it and all older jobs of its stream have ended.
 * - The eventfd is readable exactly while the completed list is not empty: written once a batch at
 *   most, and only when the list was empty before.
 * - After fork() the child has no workers; it may only drop the pool (see pool_close).
 */
#define _GNU_SOURCE
#include "pool.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum {
    PAGE = 4096,       /* what direct writes are aligned to */
    DIRECT_MIN = 65536 /* less is not worth a wait for the disk */
};

struct pool {
    pthread_mutex_t lock;
    pthread_cond_t work;  /* a stream became ready, or the pool closes */
    pthread_cond_t ended; /* pool_close is done */
    struct plan plan;
    int batch, idle, eventfd;
    bool closing, closed;
    struct stream *ready_first, *ready_last;
    int ready;
    struct job *completed_first, *completed_last;
    struct pool_statistics statistics;
    pid_t process;
    int threads;
    pthread_t thread[];
};

/* --- the lists; all of these with the lock held --- */

static void add_ready(struct pool *pool, struct stream *stream) {
    stream->next_ready = NULL;
    if (pool->ready_first == NULL)
        pool->ready_first = stream;
    else
        pool->ready_last->next_ready = stream;
    pool->ready_last = stream;
    pool->ready++;
}

static struct stream *take_ready(struct pool *pool) {
    struct stream *stream = pool->ready_first;
    pool->ready_first = stream->next_ready;
    pool->ready--;
    return stream;
}

static void add_completed(struct pool *pool, struct job *job) {
    job->next = NULL;
    if (pool->completed_first == NULL)
        pool->completed_first = job;
    else
        pool->completed_last->next = job;
    pool->completed_last = job;
    pool->statistics.completed++;
}

/* Moves the stream's ended jobs to the completed list, up to the first that has not ended. */
static void report_stream(struct pool *pool, struct stream *stream) {
    while (stream->oldest != NULL && stream->oldest->done) {
        struct job *job = stream->oldest;
        stream->oldest = job->next;
        add_completed(pool, job);
    }
}

static void wake_collector(struct pool *pool, bool was_empty) {
    if (!was_empty || pool->completed_first == NULL)
        return;
    pool->statistics.wakeups++;
    while (eventfd_write(pool->eventfd, 1) < 0 && errno == EINTR)
        ;
}

static void wake_worker(struct pool *pool) {
    if (pool->ready > 0 && pool->idle > 0)
        pthread_cond_signal(&pool->work);
}

/* Idle workers get their share of what is ready, unless it is too few for lanes to pay. */
static int take_batch(struct pool *pool, struct job *batch[]) {
    int share = (pool->ready + pool->idle) / (pool->idle + 1);
    int limit = share > pool->plan.enough ? share : pool->plan.enough;
    if (limit > pool->batch)
        limit = pool->batch;
    int count = 0;
    uint64_t bytes = 0;
    while (count < limit && pool->ready_first != NULL) {
        struct job *job = take_ready(pool)->next_to_hash;
        bytes += job->size;
        batch[count++] = job;
    }
    int size = 0;
    while (1 << size < count)
        size++;
    pool->statistics.sizes[size]++;
    pool->statistics.waiting -= (uint64_t)count;
    pool->statistics.hashing += (uint64_t)count;
    pool->statistics.batches++;
    pool->statistics.jobs += (uint64_t)count;
    pool->statistics.bytes += bytes;
    return count;
}

static void release_streams(struct pool *pool, struct job *batch[], int count) {
    for (int i = 0; i < count; i++) {
        struct stream *stream = batch[i]->stream;
        stream->next_to_hash = batch[i]->next;
        if (stream->next_to_hash != NULL)
            add_ready(pool, stream);
    }
}

static void complete_batch(struct pool *pool, struct job *batch[], int count) {
    bool was_empty = pool->completed_first == NULL;
    for (int i = 0; i < count; i++)
        batch[i]->done = true;
    for (int i = 0; i < count; i++)
        report_stream(pool, batch[i]->stream);
    wake_collector(pool, was_empty);
}

/* --- the work; without the lock --- */

static struct tally hash_batch(const struct plan *plan, struct job *batch[], int count) {
    struct tally tally = {0};
    struct feed feeds[BATCH_MAX];
    int lanes = 0;
    for (int i = 0; i < count; i++) {
        struct feed feed = sha_prepare(&batch[i]->stream->sha, batch[i]->data, batch[i]->size);
        if (feed.sha->algorithm == SHA256)
            feeds[lanes++] = feed;
        else
            sha_finish_feed(feed);
    }
    plan_run(plan, feeds, lanes, &tally);
    for (int i = 0; i < count; i++)
        if (batch[i]->want_state)
            batch[i]->saved_size = sha_save(&batch[i]->stream->sha, batch[i]->saved);
    return tally;
}

static int write_whole(int fd, const uint8_t *data, size_t size, off_t offset) {
    while (size > 0) {
        ssize_t written = pwrite(fd, data, size, offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return written < 0 ? errno : EIO;
        data += written;
        size -= (size_t)written;
        offset += written;
    }
    return 0;
}

/* Whole pages past the page cache, what is left before and behind them through it. The two never
 * meet in a page. A filesystem that wants another alignment gets all of it through the cache. */
static int write_direct(const struct job *job) {
    size_t before = (size_t)(-(uint64_t)job->offset & (PAGE - 1));
    const uint8_t *pages = job->data + before;
    if (before + DIRECT_MIN > job->size || ((uintptr_t)pages & (PAGE - 1)) != 0)
        return write_whole(job->fd, job->data, job->size, job->offset);
    size_t size = (job->size - before) & ~(size_t)(PAGE - 1);
    int error = write_whole(job->fd, job->data, before, job->offset);
    if (error == 0)
        error = write_whole(job->direct, pages, size, job->offset + (off_t)before);
    if (error == EINVAL)
        error = write_whole(job->fd, pages, size, job->offset + (off_t)before);
    if (error == 0)
        error = write_whole(job->fd, pages + size, job->size - before - size,
                            job->offset + (off_t)(before + size));
    return error;
}

static int write_job(const struct job *job) {
    if (job->reserve > 0) /* only to keep the file in one piece: the write says what is wrong */
        (void)fallocate(job->fd, FALLOC_FL_KEEP_SIZE, job->offset, job->reserve);
    if (job->direct >= 0)
        return write_direct(job);
    return write_whole(job->fd, job->data, job->size, job->offset);
}

static void *worker(void *argument) {
    struct pool *pool = argument;
    struct job *batch[BATCH_MAX];
    pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (pool->ready_first == NULL && !pool->closing) {
            pool->idle++;
            pthread_cond_wait(&pool->work, &pool->lock);
            pool->idle--;
        }
        if (pool->closing)
            break;
        int count = take_batch(pool, batch);
        wake_worker(pool);
        pthread_mutex_unlock(&pool->lock);

        struct tally tally = hash_batch(&pool->plan, batch, count);

        pthread_mutex_lock(&pool->lock);
        pool->statistics.tally.lane_blocks += tally.lane_blocks;
        pool->statistics.tally.lane_places += tally.lane_places;
        pool->statistics.tally.single_blocks += tally.single_blocks;
        pool->statistics.hashing -= (uint64_t)count;
        pool->statistics.writing += (uint64_t)count;
        for (int i = 0; i < count; i++)
            __atomic_store_n(&batch[i]->hashed, true, __ATOMIC_RELAXED);
        release_streams(pool, batch, count);
        wake_worker(pool);
        pthread_mutex_unlock(&pool->lock);

        for (int i = 0; i < count; i++)
            if (batch[i]->fd >= 0)
                batch[i]->error = write_job(batch[i]);

        pthread_mutex_lock(&pool->lock);
        pool->statistics.writing -= (uint64_t)count;
        complete_batch(pool, batch, count);
    }
    pthread_mutex_unlock(&pool->lock);
    return NULL;
}

/* --- for the owner --- */

struct pool *pool_open(int threads, int batch, const struct plan *plan) {
    struct pool *pool = calloc(1, sizeof *pool + (size_t)threads * sizeof pool->thread[0]);
    if (pool == NULL)
        return NULL;
    pool->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (pool->eventfd < 0) {
        int error = errno;
        free(pool);
        errno = error;
        return NULL;
    }
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->work, NULL);
    pthread_cond_init(&pool->ended, NULL);
    pool->plan = *plan;
    pool->batch = batch;
    pool->process = getpid();

    sigset_t all, before; /* signals are for the interpreter's main thread */
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = 0;
    while (pool->threads < threads && error == 0) {
        error = pthread_create(&pool->thread[pool->threads], NULL, worker, pool);
        pool->threads += error == 0;
    }
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0) {
        pool_close(pool);
        pool_free(pool);
        errno = error;
        return NULL;
    }
    return pool;
}

int pool_fileno(const struct pool *pool) { return pool->eventfd; }

bool pool_submit(struct pool *pool, struct job *job) {
    struct stream *stream = job->stream;
    job->next = NULL;
    job->done = job->hashed = false;
    job->error = 0;
    job->saved_size = 0;
    pthread_mutex_lock(&pool->lock);
    if (pool->closing) {
        pthread_mutex_unlock(&pool->lock);
        return false;
    }
    if (stream->oldest == NULL)
        stream->oldest = job;
    else
        stream->newest->next = job;
    stream->newest = job;
    if (stream->next_to_hash == NULL) {
        stream->next_to_hash = job;
        add_ready(pool, stream);
    }
    pool->statistics.waiting++;
    wake_worker(pool);
    pthread_mutex_unlock(&pool->lock);
    return true;
}

struct job *pool_completed(struct pool *pool) {
    eventfd_t count;
    pthread_mutex_lock(&pool->lock);
    struct job *first = pool->completed_first;
    pool->completed_first = NULL;
    pool->statistics.completed = 0;
    if (first != NULL)
        eventfd_read(pool->eventfd, &count);
    pthread_mutex_unlock(&pool->lock);
    return first;
}

void pool_uncollect(struct pool *pool, struct job *first) {
    struct job *last = first;
    uint64_t count = 1;
    for (; last->next != NULL; last = last->next)
        count++;
    pthread_mutex_lock(&pool->lock);
    bool was_empty = pool->completed_first == NULL;
    last->next = pool->completed_first;
    pool->completed_first = first;
    if (was_empty)
        pool->completed_last = last;
    pool->statistics.completed += count;
    wake_collector(pool, was_empty);
    pthread_mutex_unlock(&pool->lock);
}

/* All workers have ended: what waits is on the ready list, and so is every stream it waits in. */
static void cancel_waiting(struct pool *pool) {
    bool was_empty = pool->completed_first == NULL;
    while (pool->ready_first != NULL) {
        struct stream *stream = take_ready(pool);
        for (struct job *job = stream->next_to_hash; job != NULL; job = job->next) {
            job->error = ECANCELED;
            job->done = true;
        }
        stream->next_to_hash = NULL;
        report_stream(pool, stream);
    }
    pool->statistics.waiting = 0;
    wake_collector(pool, was_empty);
}

void pool_close(struct pool *pool) {
    if (pool->process != getpid())
        return; /* a fork has copied the lock in any state, and no threads */
    pthread_mutex_lock(&pool->lock);
    if (pool->closing) {
        while (!pool->closed)
            pthread_cond_wait(&pool->ended, &pool->lock);
        pthread_mutex_unlock(&pool->lock);
        return;
    }
    pool->closing = true;
    pthread_cond_broadcast(&pool->work);
    pthread_mutex_unlock(&pool->lock);
    for (int i = 0; i < pool->threads; i++)
        pthread_join(pool->thread[i], NULL);
    pthread_mutex_lock(&pool->lock);
    cancel_waiting(pool);
    pool->closed = true;
    pthread_cond_broadcast(&pool->ended);
    pthread_mutex_unlock(&pool->lock);
}

void pool_free(struct pool *pool) {
    if (pool->process != getpid())
        return;
    close(pool->eventfd);
    pthread_cond_destroy(&pool->ended);
    pthread_cond_destroy(&pool->work);
    pthread_mutex_destroy(&pool->lock);
    free(pool);
}

struct pool_statistics pool_look(struct pool *pool) {
    pthread_mutex_lock(&pool->lock);
    struct pool_statistics statistics = pool->statistics;
    pthread_mutex_unlock(&pool->lock);
    return statistics;
}
