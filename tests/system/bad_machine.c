/* Stands between a process and its machine: slow or failing syncs, writes that are refused, a wall clock that is off.
 * What goes wrong is read from the file named by BAD_MACHINE, a line of four numbers, mapped once and read each time:
 * milliseconds that a sync takes, errno of syncs, errno of writes, and seconds that the wall clock is off. Writes and
 * syncs are touched only where the file's path contains "/journal.db". The monotonic and boot clocks are left alone. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int *told(void) {
    static const volatile int *map;
    static const int nothing[4];
    if (map == NULL) {
        const char *path = getenv("BAD_MACHINE");
        int file = path == NULL ? -1 : open(path, O_RDONLY | O_CLOEXEC);
        void *at = file < 0 ? MAP_FAILED : mmap(NULL, sizeof nothing, PROT_READ, MAP_SHARED, file, 0);
        if (file >= 0) close(file);
        map = at == MAP_FAILED ? nothing : at;
    }
    return map;
}

static int is_journal(int file) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, "/journal.db") != NULL;
}

static int synced(int file, long number) {
    if (is_journal(file)) {
        int wait_ms = told()[0], failure = told()[1];
        if (wait_ms > 0) usleep((useconds_t)wait_ms * 1000);
        if (failure != 0) { errno = failure; return -1; }
    }
    return (int)syscall(number, file);
}

int fsync(int file) { return synced(file, SYS_fsync); }
int fdatasync(int file) { return synced(file, SYS_fdatasync); }

#define REFUSED(file) (told()[2] != 0 && is_journal(file) ? (errno = told()[2], 1) : 0)

ssize_t pwrite64(int file, const void *from, size_t size, off64_t at) {
    return REFUSED(file) ? -1 : syscall(SYS_pwrite64, file, from, size, at);
}
ssize_t pwrite(int file, const void *from, size_t size, off_t at) { return pwrite64(file, from, size, at); }
ssize_t write(int file, const void *from, size_t size) {
    return REFUSED(file) ? -1 : syscall(SYS_write, file, from, size);
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (real == NULL) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int said = real(clock, now);
    if (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE) now->tv_sec += told()[3];
    return said;
}
int gettimeofday(struct timeval *now, void *zone) {
    (void)zone;
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    now->tv_sec = at.tv_sec;
    now->tv_usec = at.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *into) {
    struct timespec at;
    clock_gettime(CLOCK_REALTIME, &at);
    if (into != NULL) *into = at.tv_sec;
    return at.tv_sec;
}
