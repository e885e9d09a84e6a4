/* Runs a script. Rule: it ends at the first call that fails, with no temporary file left behind. */
#define _GNU_SOURCE
#include "script.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static uint64_t hash_of(const char *text) { /* FNV-1a */
    uint64_t hash = 14695981039346656037u;
    for (; *text != '\0'; text++)
        hash = (hash ^ (uint8_t)*text) * 1099511628211u;
    return hash;
}

void script_prepare(struct script *script) {
    script->at = 0;
    script->failed = NO_CALL;
    for (int i = 0; i < script->count; i++) {
        struct call *call = &script->calls[i];
        call->of = NO_CALL;
        if (call->path == NULL)
            continue;
        call->hash = hash_of(call->path);
        for (int j = 0; j < i; j++) {
            struct call *earlier = &script->calls[j];
            if (earlier->kind == WRITE_FILE && earlier->hash == call->hash &&
                strcmp(earlier->path, call->path) == 0) {
                call->of = j;
                earlier->synced |= call->kind == SYNC_FILE;
            }
        }
    }
}

static int close_written(struct call *call) {
    int error = 0;
    if (call->descriptor != NOT_OPEN && close(call->descriptor) < 0 && errno != EINTR)
        error = errno; /* NFS says only now that the disk is full */
    call->descriptor = NOT_OPEN;
    return error;
}

static int write_whole(int descriptor, const uint8_t *data, size_t size, off_t offset) {
    while (size > 0) {
        ssize_t written = pwrite(descriptor, data, size, offset);
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

static int open_again(const char *path, int flags) {
    int descriptor;
    do
        descriptor = open(path, flags | O_CLOEXEC, 0644);
    while (descriptor < 0 && errno == EINTR);
    return descriptor;
}

static int write_file(struct call *call) {
    call->descriptor = open_again(call->path, O_WRONLY | O_CREAT | O_EXCL);
    if (call->descriptor < 0)
        return errno;
    call->made = true;
    int error = write_whole(call->descriptor, call->data, call->size, 0);
    if (error == 0 && !call->synced)
        error = close_written(call);
    return error;
}

static int because(int result) { return result < 0 ? errno : 0; }

static int unless(int tolerated, int error) { return error == tolerated ? 0 : error; }

static int do_call(struct script *script, struct call *call) {
    switch (call->kind) {
    case MAKE_DIRECTORY:
        return unless(EEXIST, because(mkdir(call->path, 0777)));
    case WRITE_FILE:
        return write_file(call);
    case RENAME:
        return because(rename(call->path, call->to));
    case LINK: {
        int error = because(link(call->path, call->to));
        script->existed |= error == EEXIST;
        return unless(EEXIST, error);
    }
    case UNLINK:
        return unless(ENOENT, because(unlink(call->path)));
    case REMOVE_DIRECTORY:
        return unless(ENOENT, because(rmdir(call->path)));
    case TOUCH:
        return because(utimensat(AT_FDCWD, call->path, NULL, 0));
    case SET_MODE:
        return because(fchmod(call->descriptor, call->mode));
    case WRITE_AT:
        return write_whole(call->descriptor, call->data, call->size, call->offset);
    default:
        return EINVAL;
    }
}

static void end(struct script *script, int failed, int error) {
    script->failed = failed;
    script->error = error;
    script->at = script->count;
    for (int i = 0; i < script->count; i++) {
        struct call *call = &script->calls[i];
        if (call->kind != WRITE_FILE)
            continue;
        (void)close_written(call);
        if (call->made)
            (void)unlink(call->path);
        call->made = false;
    }
}

static bool is_sync(const struct call *call) {
    return call->kind == SYNC_FILE || call->kind == SYNC_DIRECTORY;
}

bool script_go_on(struct script *script) {
    while (script->at < script->count) {
        struct call *call = &script->calls[script->at];
        if (is_sync(call))
            return true;
        int error = do_call(script, call);
        if (error != 0) {
            end(script, script->at, error);
            return false;
        }
        if ((call->kind == RENAME || call->kind == UNLINK) && call->of != NO_CALL)
            script->calls[call->of].made = false;
        script->at++;
    }
    return false;
}

int script_syncs_end(const struct script *script) {
    int behind = script->at;
    while (behind < script->count && is_sync(&script->calls[behind]))
        behind++;
    return behind;
}

static int sync_file(int descriptor) {
    int result;
    do
        result = fdatasync(descriptor);
    while (result < 0 && errno == EINTR);
    return because(result);
}

static int sync_directory(const char *path) {
    int descriptor = open_again(path, O_RDONLY | O_DIRECTORY);
    if (descriptor < 0) /* whoever removed it, and what we put there, synced the one above */
        return unless(ENOENT, errno);
    int result;
    do
        result = fsync(descriptor);
    while (result < 0 && errno == EINTR);
    int error = because(result);
    close(descriptor);
    return error;
}

void script_sync(struct call *call, struct script *script, const struct call *same) {
    if (same != NULL) {
        call->error = same->error;
    } else if (call->kind == SYNC_DIRECTORY) {
        call->error = sync_directory(call->path);
    } else if (call->of == NO_CALL) {
        call->error = sync_file(call->descriptor);
    } else {
        struct call *written = &script->calls[call->of];
        call->error = sync_file(written->descriptor);
        int error = close_written(written);
        if (call->error == 0)
            call->error = error;
    }
}

void script_synced(struct script *script) {
    int behind = script_syncs_end(script);
    for (; script->at < behind; script->at++)
        if (script->calls[script->at].error != 0) {
            end(script, script->at, script->calls[script->at].error);
            return;
        }
}
