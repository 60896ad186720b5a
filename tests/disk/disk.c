/*
 * Library that is preloaded into a program and simulates a faulty disk for the files of one folder (Linux, glibc).
 *
 *   DISK_FOLDER   absolute path of the folder
 *   DISK_UNDO     folder of undo logs; if set, the disk has a volatile cache. `<this>/<file>.undo` holds the old bytes of every
 *                 write until the file is synced. A test cuts the power by killing the program and restoring old bytes.
 *   DISK_LAZY     if set, the log is synced no more often than with SQLite's `synchronous=NORMAL` (see `is_promised`)
 *   DISK_FAULT    path of a file; while it exists, it names the fault of the disk: `full`, `read-only` or `broken`
 *   DISK_HANDLES  maximum number of open files and connections of the program
 *
 * Assumptions about SQLite: the names of its files; it writes only with write and pwrite, and never truncates when it opens a
 * file. The `-shm` file is a shared mapping, which the next process rebuilds from the log after a power cut, so it is ignored.
 * Creations and removals of files count as on disk at once.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define MAX_FILES 4096

/* Header before the old bytes, which undo.rs reads. All fields are in bytes. A truncation has the count 0. */
struct record {
    long long offset, count, size_before, saved;
};

enum kind { NOT_OURS, DATABASE, LOG, JOURNAL, OTHER };

static struct file {
    enum kind kind;
    int undo;              /* the undo log, or -1 */
    int is_header_written; /* the last write was at offset 0 */
} files[MAX_FILES];

/* Keeps an undo record and its write together. */
static pthread_mutex_t writing = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void limit_handles(void) {
    const char *handles = getenv("DISK_HANDLES");
    if (handles) {
        struct rlimit limit = {(rlim_t)atoi(handles), (rlim_t)atoi(handles)};
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

static void give_up(const char *why) {
    perror(why);
    abort(); /* Without complete undo logs, the test proves nothing. */
}

static struct file *ours(int fd) {
    return fd >= 0 && fd < MAX_FILES && files[fd].kind != NOT_OURS ? &files[fd] : NULL;
}

/* Returns the name of a file in the folder, or NULL if the file is elsewhere. */
static const char *name_of(const char *path) {
    const char *folder = getenv("DISK_FOLDER");
    size_t length = folder ? strlen(folder) : 0;
    if (!length || strncmp(path, folder, length) != 0 || path[length] != '/' || strchr(path + length + 1, '/')) return NULL;
    return path + length + 1;
}

static enum kind kind_of(const char *name) {
    if (!name) return NOT_OURS;
    const char *dash = strrchr(name, '-');
    if (!dash) return DATABASE;
    return !strcmp(dash, "-wal") ? LOG : !strcmp(dash, "-journal") ? JOURNAL : OTHER;
}

static int undo_path(char *path, const char *name) {
    const char *folder = getenv("DISK_UNDO");
    return folder && snprintf(path, PATH_MAX, "%s/%s.undo", folder, name) < PATH_MAX;
}

/* ---- faults ---- */

enum fault { NONE, FULL, READ_ONLY, BROKEN };

static enum fault fault(void) {
    const char *path = getenv("DISK_FAULT");
    int saved = errno, file = path ? REAL(open)(path, O_RDONLY | O_CLOEXEC) : -1;
    char letter = 0;
    if (file >= 0) {
        if (read(file, &letter, 1) != 1) letter = 0;
        REAL(close)(file);
    }
    errno = saved;
    return letter == 'f' ? FULL : letter == 'r' ? READ_ONLY : letter == 'b' ? BROKEN : NONE;
}

static int refuse(int error) {
    errno = error;
    return 1;
}

/* Returns 1 if the fault refuses a write. A full disk refuses growth of a file, but accepts writes over existing bytes. */
static int is_refused(int fd, long long end) {
    struct stat now;
    switch (fault()) {
    case FULL: return fstat(fd, &now) == 0 && end > now.st_size && refuse(ENOSPC);
    case READ_ONLY: return refuse(EROFS);
    case BROKEN: return refuse(EIO);
    default: return 0;
    }
}

/* ---- volatile cache ---- */

static void remember(struct file *file, int fd, long long offset, long long count) {
    struct stat now;
    if (file->undo < 0) return;
    if (fstat(fd, &now) != 0) give_up("fstat");
    long long end = count ? offset + count : now.st_size;
    long long saved = (end < now.st_size ? end : now.st_size) - offset;
    struct record record = {offset, count, now.st_size, saved > 0 ? saved : 0};
    char *old = malloc(record.saved ? (size_t)record.saved : 1);
    if (!old || pread(fd, old, (size_t)record.saved, offset) != record.saved) give_up("pread");
    struct iovec parts[] = {{&record, sizeof record}, {old, (size_t)record.saved}};
    if (writev(file->undo, parts, 2) != (ssize_t)sizeof record + record.saved) give_up("writev");
    free(old);
    file->is_header_written = offset == 0;
}

/* Empties the undo log, because synced writes cannot be lost. */
static void settle(int undo) {
    if (REAL(ftruncate)(undo, 0) != 0) give_up("ftruncate");
}

/*
 * Returns true if this sync makes the file durable. SQLite runs with synchronous=FULL and syncs its log at every COMMIT. With
 * NORMAL it would sync the log only after writing its header, and before a checkpoint, which is before a write to the database
 * (see `settle_log`).
 */
static int is_promised(const struct file *file) {
    return file->kind != LOG || file->is_header_written || !getenv("DISK_LAZY");
}

static void settle_log(const struct file *written) {
    if (written->kind != DATABASE || !getenv("DISK_LAZY")) return;
    for (int fd = 0; fd < MAX_FILES; fd++) {
        if (files[fd].kind == LOG && files[fd].undo >= 0) settle(files[fd].undo);
    }
}

/*
 * A sync takes 10 ms, as on a rotating disk, so that many power cuts hit one. A sync of the database itself is rare, because only
 * checkpoints make it; it takes 200 ms, so that some cuts hit it. No real sync is made: the machine itself keeps its power.
 */
static int sync_slowly(struct file *file) {
    if (file->undo < 0) return 0;
    struct timespec pause = {0, file->kind == DATABASE ? 200000000 : 10000000};
    nanosleep(&pause, NULL);
    pthread_mutex_lock(&writing);
    if (is_promised(file)) settle(file->undo);
    pthread_mutex_unlock(&writing);
    return 0;
}

/* ---- replaced library functions ---- */

static int sync_file(int fd, int (*real)(int)) {
    struct file *file = ours(fd);
    if (!file) return real(fd);
    return fault() == BROKEN ? (errno = EIO, -1) : sync_slowly(file);
}

int fsync(int fd) {
    return sync_file(fd, REAL(fsync));
}

int fdatasync(int fd) {
    return sync_file(fd, REAL(fdatasync));
}

ssize_t pwrite64(int fd, const void *bytes, size_t count, off64_t offset) {
    struct file *file = ours(fd);
    if (!file) return REAL(pwrite64)(fd, bytes, count, offset);
    if (is_refused(fd, offset + (long long)count)) return -1;
    pthread_mutex_lock(&writing);
    settle_log(file);
    remember(file, fd, offset, (long long)count);
    ssize_t written = REAL(pwrite64)(fd, bytes, count, offset);
    pthread_mutex_unlock(&writing);
    return written;
}

ssize_t pwrite(int fd, const void *bytes, size_t count, off_t offset) {
    return pwrite64(fd, bytes, count, offset);
}

ssize_t write(int fd, const void *bytes, size_t count) {
    if (!ours(fd)) return REAL(write)(fd, bytes, count);
    off_t offset = lseek(fd, 0, SEEK_CUR);
    ssize_t written = offset < 0 ? -1 : pwrite64(fd, bytes, count, offset);
    if (written > 0) lseek(fd, written, SEEK_CUR);
    return written;
}

int ftruncate64(int fd, off64_t size) {
    struct file *file = ours(fd);
    if (!file) return REAL(ftruncate64)(fd, size);
    if (is_refused(fd, size)) return -1;
    pthread_mutex_lock(&writing);
    settle_log(file);
    remember(file, fd, size, 0);
    int done = REAL(ftruncate64)(fd, size);
    pthread_mutex_unlock(&writing);
    return done;
}

int ftruncate(int fd, off_t size) {
    return ftruncate64(fd, size);
}

int unlink(const char *path) {
    const char *name = name_of(path);
    char undo[PATH_MAX];
    enum fault now = name ? fault() : NONE;
    if (now == READ_ONLY || now == BROKEN) return errno = now == READ_ONLY ? EROFS : EIO, -1;
    if (name && undo_path(undo, name)) REAL(unlink)(undo);
    return REAL(unlink)(path);
}

static int open_file(const char *path, int flags, mode_t mode) {
    const char *name = name_of(path);
    if (name && (flags & O_ACCMODE) != O_RDONLY && fault() == READ_ONLY) return errno = EROFS, -1;
    int fd = REAL(open)(path, flags, mode);
    if (!name || fd < 0 || fd >= MAX_FILES) return fd;
    char undo[PATH_MAX];
    struct file file = {kind_of(name), -1, 0};
    if (file.kind != OTHER && (flags & O_ACCMODE) != O_RDONLY && undo_path(undo, name)) {
        file.undo = REAL(open)(undo, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
        if (file.undo < 0) give_up(undo);
    }
    files[fd] = file;
    return fd;
}

#define OPEN(name)                                                                                                             \
    int name(const char *path, int flags, ...) {                                                                               \
        va_list rest;                                                                                                          \
        va_start(rest, flags);                                                                                                 \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;                                                \
        va_end(rest);                                                                                                          \
        return open_file(path, flags, mode);                                                                                   \
    }
OPEN(open)
OPEN(open64)

int close(int fd) {
    struct file *file = ours(fd);
    if (file) {
        if (file->undo >= 0) REAL(close)(file->undo);
        file->kind = NOT_OURS;
    }
    return REAL(close)(fd);
}
