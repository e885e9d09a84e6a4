/* A script: calls of the system in order, as storage/filesystem/script.py writes them down. No Python. */
#ifndef TRIOREG_SCRIPT_H
#define TRIOREG_SCRIPT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The numbers are those of script.py. */
enum kind {
    MAKE_DIRECTORY, /* path; one that is there is fine */
    WRITE_FILE,     /* path, bytes: a new file, removed again should the script fail before it moved */
    SYNC_FILE,      /* descriptor, or the path of a WRITE_FILE before */
    SYNC_DIRECTORY, /* path; one that is gone is fine */
    RENAME,         /* path, to */
    LINK,           /* path, to; a file that is there is fine, and said */
    UNLINK,         /* path; a file that is gone is fine */
    REMOVE_DIRECTORY, /* path; one that is gone is fine */
    TOUCH,            /* path */
    SET_MODE,         /* descriptor, mode */
    WRITE_AT,         /* descriptor, (bytes, offset) */
    KINDS
};

enum { NOT_OPEN = -1, NO_CALL = -1 };

struct call {
    enum kind kind;
    const char *path, *to;
    uint64_t hash; /* of `path` */
    const uint8_t *data;
    size_t size;
    off_t offset;
    int descriptor; /* a WRITE_FILE's from when it is written until it is synced */
    mode_t mode;
    int of;      /* the WRITE_FILE that made `path`, or NO_CALL */
    bool synced; /* a WRITE_FILE that a SYNC_FILE follows */
    bool made;   /* a WRITE_FILE whose file is there under its first name */
    int error;   /* of a sync */
};

struct script {
    struct script *next;
    int count, at;
    int failed, error; /* the call that failed, or NO_CALL; errno */
    bool existed;      /* a LINK met a file */
    struct call *calls;
};

/* Fills in what follows from the calls: hashes, and which file is whose. */
void script_prepare(struct script *script);

/* Runs the calls up to the next sync; false when none follows: the script has ended. */
bool script_go_on(struct script *script);

/* Where the syncs end that begin at `at`. */
int script_syncs_end(const struct script *script);

/* Makes one sync, or takes over what `same` came to. */
void script_sync(struct call *call, struct script *script, const struct call *same);

/* All syncs from `at` on are made: goes behind them, or ends with the first error. */
void script_synced(struct script *script);

#endif
