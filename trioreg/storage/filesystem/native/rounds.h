/* Threads that run scripts, many at a time, and sync for all of them together. No Python. */
#ifndef TRIOREG_ROUNDS_H
#define TRIOREG_ROUNDS_H

#include "script.h"

struct rounds;

enum { THREADS_MAX = 16, TIMES_MAX = 1024 };

/* What a sync took. */
struct sync_time {
    bool directory;
    float seconds;
};

/* NULL and errno. Threads begin with the first script. */
struct rounds *rounds_open(int threads);

/* 0, or an errno: there is no thread that would run it, or this is a process that was forked. */
int rounds_submit(struct rounds *rounds, struct script *script);

/* Readable exactly while a script has ended that was not handed out. */
int rounds_fileno(const struct rounds *rounds);

/* Those that ended. `times` gets what syncs took since the last call, the number goes to `count`. */
struct script *rounds_ended(struct rounds *rounds, struct sync_time times[TIMES_MAX], int *count);

/* Waits for scripts that were submitted; they can still be taken by `rounds_ended`. Once. */
void rounds_close(struct rounds *rounds);
void rounds_free(struct rounds *rounds);

#endif
