/* Threads that run scripts, many at a time, and sync for all of them together.
 *
 * Owns: the queue of scripts, and the list of those that ended; one lock for both, never held
 * while the disk is asked.
 * Rules:
 * - A thread takes every script that waits to its next sync, makes all the syncs, each file and
 *   directory once, and goes on; scripts that came meanwhile join it. So scripts that end together
 *   share a commit of the filesystem's journal.
 * - The eventfd is readable exactly while the list of ended scripts is not empty.
 * - After fork() the child has no threads; it may only drop all of it.
 */
#define _GNU_SOURCE
#include "rounds.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

enum {
    AT_ONCE = 64,           /* scripts of one thread: each may hold some files open */
    STACK_BYTES = 256 * 1024 /* a thread needs about 20 KB */
};

struct rounds {
    pthread_mutex_t lock;
    pthread_cond_t work;
    int eventfd, most, threads, idle;
    bool closing;
    struct script *waiting_first, *waiting_last;
    struct script *ended_first, *ended_last;
    struct sync_time times[TIMES_MAX];
    int timed;
    pid_t process;
    pthread_t thread[THREADS_MAX];
};

/* --- the lists; with the lock held --- */

static void append(struct script **first, struct script **last, struct script *script) {
    script->next = NULL;
    if (*first == NULL)
        *first = script;
    else
        (*last)->next = script;
    *last = script;
}

static int take_waiting(struct rounds *rounds, struct script *batch[], int count) {
    while (count < AT_ONCE && rounds->waiting_first != NULL) {
        batch[count++] = rounds->waiting_first;
        rounds->waiting_first = rounds->waiting_first->next;
    }
    return count;
}

/* Keeps in `batch` those that go on; the others have ended. */
static int hand_over(struct rounds *rounds, struct script *batch[], const bool goes_on[], int count) {
    bool was_empty = rounds->ended_first == NULL;
    int left = 0;
    for (int i = 0; i < count; i++)
        if (goes_on[i])
            batch[left++] = batch[i];
        else
            append(&rounds->ended_first, &rounds->ended_last, batch[i]);
    if (was_empty && rounds->ended_first != NULL)
        while (eventfd_write(rounds->eventfd, 1) < 0 && errno == EINTR)
            ;
    return left;
}

static void add_times(struct rounds *rounds, const struct sync_time times[], int count) {
    for (int i = 0; i < count && rounds->timed < TIMES_MAX; i++)
        rounds->times[rounds->timed++] = times[i];
}

/* --- the work; without the lock --- */

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* The same directory in a script before, or earlier in this one. A descriptor is one script's alone. */
static const struct call *same_before(struct script *batch[], int script, const struct call *call) {
    for (int i = 0; i <= script && call->kind == SYNC_DIRECTORY; i++) {
        int behind = script_syncs_end(batch[i]);
        for (int at = batch[i]->at; at < behind; at++) {
            const struct call *other = &batch[i]->calls[at];
            if (other == call)
                return NULL;
            if (other->kind == SYNC_DIRECTORY && other->hash == call->hash &&
                strcmp(other->path, call->path) == 0)
                return other;
        }
    }
    return NULL;
}

/* Files first, so that what a directory then names is whole. */
static int sync_all(struct script *batch[], int count, struct sync_time times[]) {
    int timed = 0;
    for (int directories = 0; directories < 2; directories++)
        for (int i = 0; i < count; i++) {
            int behind = script_syncs_end(batch[i]);
            for (int at = batch[i]->at; at < behind; at++) {
                struct call *call = &batch[i]->calls[at];
                if ((call->kind == SYNC_DIRECTORY) != (bool)directories)
                    continue;
                const struct call *same = same_before(batch, i, call);
                double began = now();
                script_sync(call, batch[i], same);
                if (same == NULL && timed < TIMES_MAX)
                    times[timed++] = (struct sync_time){directories, (float)(now() - began)};
            }
        }
    for (int i = 0; i < count; i++)
        script_synced(batch[i]);
    return timed;
}

static void *worker(void *argument) {
    struct rounds *rounds = argument;
    struct script *batch[AT_ONCE];
    struct sync_time times[TIMES_MAX];
    bool goes_on[AT_ONCE];
    int count = 0;
    pthread_mutex_lock(&rounds->lock);
    for (;;) {
        count = take_waiting(rounds, batch, count);
        if (count == 0) {
            if (rounds->closing)
                break;
            rounds->idle++;
            pthread_cond_wait(&rounds->work, &rounds->lock);
            rounds->idle--;
            continue;
        }
        pthread_mutex_unlock(&rounds->lock);
        for (int i = 0; i < count; i++)
            goes_on[i] = script_go_on(batch[i]);
        pthread_mutex_lock(&rounds->lock);
        count = hand_over(rounds, batch, goes_on, count);
        if (count == 0)
            continue;
        pthread_mutex_unlock(&rounds->lock);
        int timed = sync_all(batch, count, times);
        pthread_mutex_lock(&rounds->lock);
        add_times(rounds, times, timed);
    }
    pthread_mutex_unlock(&rounds->lock);
    return NULL;
}

/* --- for the owner --- */

struct rounds *rounds_open(int threads) {
    struct rounds *rounds = calloc(1, sizeof *rounds);
    if (rounds == NULL)
        return NULL;
    rounds->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (rounds->eventfd < 0) {
        int error = errno;
        free(rounds);
        errno = error;
        return NULL;
    }
    pthread_mutex_init(&rounds->lock, NULL);
    pthread_cond_init(&rounds->work, NULL);
    rounds->most = threads;
    rounds->process = getpid();
    return rounds;
}

static int start_thread(struct rounds *rounds) {
    sigset_t all, before; /* signals are for the interpreter's main thread */
    pthread_attr_t attributes;
    int error = pthread_attr_init(&attributes);
    if (error != 0)
        return error;
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    error = pthread_create(&rounds->thread[rounds->threads], &attributes, worker, rounds);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    rounds->threads += error == 0;
    return error;
}

int rounds_submit(struct rounds *rounds, struct script *script) {
    if (rounds->process != getpid())
        return ECHILD;
    int error = 0;
    pthread_mutex_lock(&rounds->lock);
    if (rounds->idle == 0 && rounds->threads < rounds->most)
        error = start_thread(rounds);
    if (rounds->threads > 0) {
        error = 0;
        append(&rounds->waiting_first, &rounds->waiting_last, script);
        if (rounds->idle > 0)
            pthread_cond_signal(&rounds->work);
    }
    pthread_mutex_unlock(&rounds->lock);
    return error;
}

int rounds_fileno(const struct rounds *rounds) { return rounds->eventfd; }

struct script *rounds_ended(struct rounds *rounds, struct sync_time times[TIMES_MAX], int *count) {
    eventfd_t ignored;
    pthread_mutex_lock(&rounds->lock);
    struct script *first = rounds->ended_first;
    rounds->ended_first = NULL;
    if (first != NULL)
        eventfd_read(rounds->eventfd, &ignored);
    *count = rounds->timed;
    memcpy(times, rounds->times, (size_t)rounds->timed * sizeof times[0]);
    rounds->timed = 0;
    pthread_mutex_unlock(&rounds->lock);
    return first;
}

void rounds_close(struct rounds *rounds) {
    if (rounds->process != getpid())
        return;
    pthread_mutex_lock(&rounds->lock);
    rounds->closing = true;
    pthread_cond_broadcast(&rounds->work);
    pthread_mutex_unlock(&rounds->lock);
    for (int i = 0; i < rounds->threads; i++)
        pthread_join(rounds->thread[i], NULL);
    rounds->threads = 0;
}

void rounds_free(struct rounds *rounds) {
    if (rounds->process == getpid()) {
        close(rounds->eventfd);
        pthread_cond_destroy(&rounds->work);
        pthread_mutex_destroy(&rounds->lock);
        free(rounds);
    }
}
