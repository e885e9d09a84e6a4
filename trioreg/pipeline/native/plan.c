/* Chooses between one stream at a time and lanes, by measuring; runs uneven feeds accordingly.
 *
 * Why measured: on a CPU with SHA extensions one stream alone may beat eight AVX2 lanes, and where
 * lanes begin to pay differs by CPU, compiler and the OpenSSL at hand. Flags do not tell. One
 * measurement takes about 2 ms, runs once per process, and keeps the best of many short rounds, so
 * a busy machine slows all ways alike.
 */
#include "plan.h"

#include "cpu.h"

#include <string.h>
#include <time.h>

static void one_at_a_time(uint32_t *const words[], const uint8_t *const data[], size_t blocks) {
    sha256_single(words[0], data[0], blocks);
}

int plan_ways(struct way ways[WAYS_MAX]) {
    int count = 0;
    ways[count++] = (struct way){"single", 1, one_at_a_time, 0};
#if TRIOREG_X86
    if (cpu_has_sha_ni()) {
        ways[count++] = (struct way){"sha-ni x2", 2, lanes_sha_ni_2, 0};
        ways[count++] = (struct way){"sha-ni x4", 4, lanes_sha_ni_4, 0};
    }
    if (cpu_has_avx2())
        ways[count++] = (struct way){"avx2 x8", 8, lanes_avx2, 0};
    if (cpu_has_avx512())
        ways[count++] = (struct way){"avx512 x16", 16, lanes_avx512, 0};
#endif
    return count;
}

static double nanoseconds_now(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return 1e9 * (double)now.tv_sec + (double)now.tv_nsec;
}

/* Every way hashes the same 16 KiB, in turn, so that a change of clock speed meets all of them. */
static void measure(struct way ways[], int count) {
    enum { TOTAL = 16384, ROUNDS_MIN = 3, ROUNDS_MAX = 60 };
    const double enough = 2e6; /* ns; the budget at engine start is 5 ms */
    static const uint8_t data[TOTAL];
    uint32_t words[LANES_MAX][8] = {{0}};
    uint32_t *lane_words[LANES_MAX];
    const uint8_t *lane_data[LANES_MAX];
    double begun = nanoseconds_now();
    for (int round = 0; round < ROUNDS_MAX; round++) {
        if (round >= ROUNDS_MIN && nanoseconds_now() - begun > enough)
            break;
        for (int i = 0; i < count; i++) {
            size_t share = (size_t)(TOTAL / ways[i].lanes);
            for (int lane = 0; lane < ways[i].lanes; lane++) {
                lane_words[lane] = words[lane];
                lane_data[lane] = data + (size_t)lane * share;
            }
            double before = nanoseconds_now();
            ways[i].advance(lane_words, lane_data, share / 64);
            double each = (nanoseconds_now() - before) / (double)(share / 64);
            if (round == 0 || each < ways[i].nanoseconds)
                ways[i].nanoseconds = each;
        }
    }
}

/* Cheapest sum of turns for every number of streams; of equals the widest, as that turn serves the
 * longest feeds. Ways are in order of lanes. */
static void choose(struct plan *plan) {
    const double equal = 1.0001, nearly = 4.0 / 3.0;
    double cost[LANES_MAX + 1] = {0};
    for (int active = 1; active <= LANES_MAX; active++)
        for (int i = 0; i < plan->count; i++) {
            int left = active - plan->ways[i].lanes;
            double total = plan->ways[i].nanoseconds + (left > 0 ? cost[left] : 0);
            if (i == 0 || total <= cost[active] * equal) {
                cost[active] = total;
                plan->choice[active] = i;
            }
        }
    plan->enough = 1;
    while (cost[plan->enough] / plan->enough > nearly * cost[LANES_MAX] / LANES_MAX)
        plan->enough++;
}

bool plan_make(struct plan *plan, int lanes) {
    memset(plan, 0, sizeof *plan);
    plan->count = plan_ways(plan->ways);
    if (lanes > 0) {
        int forced = 0;
        while (forced < plan->count && plan->ways[forced].lanes != lanes)
            forced++;
        if (forced == plan->count)
            return false;
        for (int active = 2; active <= LANES_MAX; active++)
            plan->choice[active] = forced;
        plan->enough = lanes;
        return true;
    }
    measure(plan->ways, plan->count);
    choose(plan);
    return true;
}

/* Longest first, so that lanes end together; nearly sorted from turn to turn. Drops the finished. */
static int sort_feeds(struct feed feeds[], int count) {
    for (int i = 1; i < count; i++) {
        struct feed feed = feeds[i];
        int j = i;
        for (; j > 0 && feeds[j - 1].blocks < feed.blocks; j--)
            feeds[j] = feeds[j - 1];
        feeds[j] = feed;
    }
    while (count > 0 && feeds[count - 1].blocks == 0)
        count--;
    return count;
}

/* One turn: the longest feeds that fit go forward by what the shortest of them has left. Idle lanes
 * hash the first stream's bytes into words nobody reads. */
static void run_turn(const struct way *way, struct feed feeds[], int active, struct tally *tally) {
    uint32_t idle[8] = {0};
    uint32_t *words[LANES_MAX];
    const uint8_t *data[LANES_MAX];
    int used = active < way->lanes ? active : way->lanes;
    size_t blocks = feeds[used - 1].blocks;
    for (int lane = 0; lane < way->lanes; lane++) {
        words[lane] = lane < used ? feeds[lane].sha->h32 : idle;
        data[lane] = feeds[lane < used ? lane : 0].data;
    }
    way->advance(words, data, blocks);
    for (int lane = 0; lane < used; lane++) {
        feeds[lane].data += 64 * blocks;
        feeds[lane].blocks -= blocks;
    }
    if (way->lanes == 1) {
        tally->single_blocks += blocks;
    } else {
        tally->lane_blocks += blocks * (size_t)used;
        tally->lane_places += blocks * (size_t)way->lanes;
    }
}

void plan_run(const struct plan *plan, struct feed feeds[], int count, struct tally *tally) {
    for (int active; (active = sort_feeds(feeds, count)) > 0; count = active) {
        int choice = plan->choice[active < LANES_MAX ? active : LANES_MAX];
        run_turn(&plan->ways[choice], feeds, active, tally);
    }
}
