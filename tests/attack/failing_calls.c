/* Injects failures of system calls into a program: LD_PRELOAD=libfailing-calls.so AURORA_FAILING_CALLS=CALL:HOW:FROM:TO:PATH

   CALL  open, read, write, sync, rename, lock, map or any
   HOW   the number of an error (errno), `short` (reads and writes one byte) or `hang` (waits until a signal ends it, after
         it has made the file that AURORA_FAILING_CALLS_REACHED names)
   FROM  the first call that fails, counted from 1 in each process; TO the last one, 0 for all
   PATH  only calls on files whose path contains this text; may be empty

   A test that fails calls at random positions must find that nothing half-written is used. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static char call_wanted[16], how[16], path_wanted[256];
static long first = 0, last = 0;
static atomic_long calls = 0;

__attribute__((constructor)) static void configure(void) {
    const char *text = getenv("AURORA_FAILING_CALLS");
    if (text) sscanf(text, "%15[^:]:%15[^:]:%ld:%ld:%255[^\n]", call_wanted, how, &first, &last, path_wanted);
}

/* Whether this call fails. Sets errno; `short` calls are reported by *is_short. */
static int fails(const char *call, const char *path, int file, int *is_short) {
    if (first == 0 || (strcmp(call_wanted, "any") && strcmp(call_wanted, call))) return 0;
    char name[4096];
    if (path_wanted[0] && !path) {
        char link[64];
        snprintf(link, sizeof link, "/proc/self/fd/%d", file);
        ssize_t length = readlink(link, name, sizeof name - 1);
        if (length < 0) return 0;
        name[length] = 0;
        path = name;
    }
    if (path_wanted[0] && !strstr(path, path_wanted)) return 0;
    long count = atomic_fetch_add(&calls, 1) + 1;
    if (count < first || (last && count > last)) return 0;
    if (!strcmp(how, "hang")) {
        const char *mark = getenv("AURORA_FAILING_CALLS_REACHED");
        int made = mark ? creat(mark, 0600) : -1;
        if (made >= 0) close(made);
        for (;;) pause();
    }
    if (!strcmp(how, "short")) {
        if (is_short) *is_short = 1;
        return 0;
    }
    errno = atoi(how);
    return 1;
}

#define REAL(result, name, ...) \
    static result (*real)(__VA_ARGS__); \
    if (!real) real = (result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, name)

#define OPEN(symbol) \
    int symbol(const char *path, int flags, ...) { \
        va_list list; \
        va_start(list, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0; \
        va_end(list); \
        REAL(int, #symbol, const char *, int, ...); \
        return fails("open", path, -1, NULL) ? -1 : real(path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(symbol) \
    int symbol(int folder, const char *path, int flags, ...) { \
        va_list list; \
        va_start(list, flags); \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(list, mode_t) : 0; \
        va_end(list); \
        REAL(int, #symbol, int, const char *, int, ...); \
        return fails("open", path, -1, NULL) ? -1 : real(folder, path, flags, mode); \
    }
OPENAT(openat)
OPENAT(openat64)

ssize_t read(int file, void *bytes, size_t count) {
    REAL(ssize_t, "read", int, void *, size_t);
    int is_short = 0;
    if (fails("read", NULL, file, &is_short)) return -1;
    return real(file, bytes, is_short && count > 1 ? 1 : count);
}

ssize_t write(int file, const void *bytes, size_t count) {
    REAL(ssize_t, "write", int, const void *, size_t);
    int is_short = 0;
    if (file > 2 && fails("write", NULL, file, &is_short)) return -1;
    return real(file, bytes, is_short && count > 1 ? 1 : count);
}

ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *into, size_t count, unsigned flags) {
    REAL(ssize_t, "copy_file_range", int, off64_t *, int, off64_t *, size_t, unsigned);
    return fails("write", NULL, to, NULL) ? -1 : real(from, at, to, into, count, flags);
}

int fsync(int file) {
    REAL(int, "fsync", int);
    return fails("sync", NULL, file, NULL) ? -1 : real(file);
}

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    return fails("rename", to, -1, NULL) ? -1 : real(from, to);
}

int flock(int file, int operation) {
    REAL(int, "flock", int, int);
    return fails("lock", NULL, file, NULL) ? -1 : real(file, operation);
}

#define MMAP(symbol) \
    void *symbol(void *at, size_t length, int protection, int flags, int file, off_t offset) { \
        REAL(void *, #symbol, void *, size_t, int, int, int, off_t); \
        if (file >= 0 && fails("map", NULL, file, NULL)) return MAP_FAILED; \
        return real(at, length, protection, flags, file, offset); \
    }
MMAP(mmap)
MMAP(mmap64)
