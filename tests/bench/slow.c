/* A slow disk, by LD_PRELOAD: system calls on files whose path holds SLOW_PATH take SLOW_MS longer.
 *
 * Reads that would not wait (RWF_NOWAIT) find nothing in the page cache, as on a disk that has to be asked.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define EXPORT __attribute__((visibility("default")))

static int slow(int fd)
{
    char link[64], path[4096];
    const char *part = getenv("SLOW_PATH");
    if (!part) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return strstr(path, part) != NULL;
}

static void nap(int fd)
{
    const char *delay = getenv("SLOW_MS");
    if (delay && slow(fd)) usleep(atoi(delay) * 1000);
}

EXPORT ssize_t pread64(int fd, void *buffer, size_t count, off64_t offset)
{
    nap(fd);
    return syscall(SYS_pread64, fd, buffer, count, offset);
}

EXPORT ssize_t preadv64(int fd, const struct iovec *parts, int count, off64_t offset)
{
    nap(fd);
    return syscall(SYS_preadv, fd, parts, count, offset, 0);
}

EXPORT ssize_t preadv64v2(int fd, const struct iovec *parts, int count, off64_t offset, int flags)
{
    if (flags & RWF_NOWAIT && slow(fd)) {
        errno = EAGAIN;
        return -1;
    }
    nap(fd);
    return syscall(SYS_preadv2, fd, parts, count, offset, 0, flags);
}

EXPORT ssize_t pwrite64(int fd, const void *buffer, size_t count, off64_t offset)
{
    nap(fd);
    return syscall(SYS_pwrite64, fd, buffer, count, offset);
}

EXPORT ssize_t pwritev64(int fd, const struct iovec *parts, int count, off64_t offset)
{
    nap(fd);
    return syscall(SYS_pwritev, fd, parts, count, offset, 0);
}

EXPORT ssize_t pwritev64v2(int fd, const struct iovec *parts, int count, off64_t offset, int flags)
{
    nap(fd);
    return syscall(SYS_pwritev2, fd, parts, count, offset, 0, flags);
}
