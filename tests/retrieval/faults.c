/* The nth call that changes a disk fails, as on a full or broken one. Loaded with LD_PRELOAD.

   Counted are writes, truncations, syncs, renames and removals, of the C library and hence of
   SQLite and FAISS, too; not what goes to the standard streams. fault_at(n) arms it, 0 never
   fails; fault_count() says how many calls there were since. With fault_stays the calls after
   the nth fail as well: a disk that stays full. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static long count, nth;
static int stays;

void fault_at(long number, int and_after) { count = 0; nth = number; stays = and_after; }
long fault_count(void) { return count; }

static int strikes(void) {
    count++;
    return nth && (count == nth || (stays && count > nth));
}

#define REAL(name) __typeof__(&name) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)
#define FAIL(code) do { errno = code; return -1; } while (0)

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    if (fd > 2 && strikes()) FAIL(ENOSPC);
    return real(fd, data, size);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    REAL(pwrite);
    if (strikes()) FAIL(ENOSPC);
    return real(fd, data, size, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(pwrite64);
    if (strikes()) FAIL(ENOSPC);
    return real(fd, data, size, at);
}
ssize_t writev(int fd, const struct iovec *parts, int n) {
    REAL(writev);
    if (fd > 2 && strikes()) FAIL(ENOSPC);
    return real(fd, parts, n);
}
int ftruncate(int fd, off_t size) {
    REAL(ftruncate);
    if (strikes()) FAIL(EIO);
    return real(fd, size);
}
int ftruncate64(int fd, off64_t size) {
    REAL(ftruncate64);
    if (strikes()) FAIL(EIO);
    return real(fd, size);
}
int fsync(int fd) {
    REAL(fsync);
    if (strikes()) FAIL(EIO);
    return real(fd);
}
int fdatasync(int fd) {
    REAL(fdatasync);
    if (strikes()) FAIL(EIO);
    return real(fd);
}
int rename(const char *from, const char *to) {
    REAL(rename);
    if (strikes()) FAIL(EIO);
    return real(from, to);
}
int renameat2(int a, const char *from, int b, const char *to, unsigned int flags) {
    REAL(renameat2);
    if (strikes()) FAIL(EIO);
    return real(a, from, b, to, flags);
}
int unlink(const char *path) {
    REAL(unlink);
    if (strikes()) FAIL(EIO);
    return real(path);
}
