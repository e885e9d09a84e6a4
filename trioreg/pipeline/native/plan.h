/* How many streams are hashed side by side, and how a batch of uneven feeds is run. */
#ifndef TRIOREG_PLAN_H
#define TRIOREG_PLAN_H

#include "lanes.h"

enum { LANES_MAX = 16, WAYS_MAX = 5, BATCH_MAX = 64 };

/* A way to advance `lanes` streams by one block each. */
struct way {
    const char *name;
    int lanes;
    lanes_function *advance;
    double nanoseconds; /* one block on every lane, measured; 0 where that was not asked */
};

struct plan {
    struct way ways[WAYS_MAX];
    int count;
    int choice[LANES_MAX + 1]; /* index of the way to take when so many streams have blocks left */
    int enough; /* streams from which a batch costs at most a third more a byte than a full one */
};

/* Blocks hashed in ways of more than one lane, places those ways had for them (idle lanes
 * included), and blocks hashed one stream at a time. */
struct tally {
    uint64_t lane_blocks, lane_places, single_blocks;
};

/* The ways this CPU has, single stream first, then by lanes. Returns how many. */
int plan_ways(struct way ways[WAYS_MAX]);
/* lanes 0: all ways, measured, the cheapest for each number of streams. 1: one stream at a time.
 * Else: the way of so many lanes from two streams on, whatever it costs. False: no such way. */
bool plan_make(struct plan *plan, int lanes);
/* Hashes all feeds (SHA-256, distinct states, at most BATCH_MAX). Their order may change. */
void plan_run(const struct plan *plan, struct feed feeds[], int count, struct tally *tally);

#endif
