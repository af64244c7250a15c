/* A disk that fails, or a process that is killed, at the k-th system call that touches a folder: preloaded, and armed by
 * `fault_arm`. Built and driven by faulty_disk.py. Linux with glibc. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))real(#name))

static char under[PATH_MAX], wanted[256];
static long at, seen;
static int failure, lasting, torn, journal = -1;

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

/* Strike at the k-th call under `folder` whose name is in `calls` ("" for all; names between commas: ",write,fsync,"):
 * fail with `error`, or be killed if that is 0; with `from_then_on` at all later ones as well. With `half`, a write has
 * done half of its work by then. Each call that counts is told to the file `told`: its name and its path. */
void fault_arm(const char *folder, const char *calls, long k, int error, int from_then_on, int half, int told) {
    snprintf(under, sizeof under, "%s", folder);
    snprintf(wanted, sizeof wanted, "%s", calls);
    at = k, seen = 0, failure = error, lasting = from_then_on, torn = half, journal = told;
}

static int counts(const char *call, const char *path) {
    char name[64];
    size_t n = strlen(under);
    if (!n || strncmp(path, under, n) || (path[n] && path[n] != '/')) return 0;
    snprintf(name, sizeof name, ",%s,", call);
    return !*wanted || strstr(wanted, name) != NULL;
}

/* Whether this call is struck; a kill comes here, unless the write is to do half of its work before. */
static int struck(const char *call, const char *path) {
    if (!counts(call, path)) return 0;
    long k = __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
    char line[PATH_MAX + 64];
    int n = snprintf(line, sizeof line, "%s %s\n", call, path);
    if (journal >= 0 && REAL(write)(journal, line, n) < 0) abort();
    int now = at && (k == at || (lasting && k > at));
    if (now && !failure && !(torn && !strcmp(call, "write"))) kill(getpid(), SIGKILL);
    return now;
}

static int struck_at(const char *call, int folder, const char *path) {
    char whole[2 * PATH_MAX] = "", link[64];
    if (!*under || !path) return 0;
    if (*path == '/') return struck(call, path);
    if (folder == AT_FDCWD) {
        if (!getcwd(whole, PATH_MAX)) return 0;
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t n = readlink(link, whole, PATH_MAX - 1);
        if (n < 0) return 0;
        whole[n] = 0;
    }
    if (*path && strcmp(path, ".")) {
        strcat(whole, "/");
        strncat(whole, path, PATH_MAX - 1);
    }
    return struck(call, whole);
}

static int struck_fd(const char *call, int fd) { return struck_at(call, fd, "."); }

static int refuse(void) {
    errno = failure;
    return -1;
}

static int opening(const char *name, int folder, const char *path, int flags, mode_t mode) {
    const char *call = flags & (O_CREAT | O_WRONLY | O_RDWR) ? "create" : "open";
    if (struck_at(call, folder, path)) return refuse();
    return ((int (*)(int, const char *, int, ...))real(name))(folder, path, flags, mode);
}

#define MODE(flags)                                \
    mode_t mode = 0;                               \
    if ((flags) & (O_CREAT | O_TMPFILE)) {         \
        va_list rest;                              \
        va_start(rest, flags);                     \
        mode = va_arg(rest, mode_t);               \
        va_end(rest);                              \
    }

int open(const char *path, int flags, ...) { MODE(flags) return opening("openat", AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE(flags) return opening("openat64", AT_FDCWD, path, flags, mode); }
int openat(int at_, const char *path, int flags, ...) { MODE(flags) return opening("openat", at_, path, flags, mode); }
int openat64(int at_, const char *path, int flags, ...) { MODE(flags) return opening("openat64", at_, path, flags, mode); }

ssize_t write(int fd, const void *bytes, size_t n) {
    if (fd != journal && struck_fd("write", fd)) {
        if (!torn || n < 2) goto fail;
        ssize_t done = REAL(write)(fd, bytes, n / 2);
        if (!failure) kill(getpid(), SIGKILL);
        return done; /* the caller writes the rest, at the next call */
    fail:
        if (!failure) kill(getpid(), SIGKILL);
        return refuse();
    }
    return REAL(write)(fd, bytes, n);
}

#define READ(function, arguments, values) \
    ssize_t function arguments { return struck_fd("read", fd) ? refuse() : REAL(function) values; }
READ(read, (int fd, void *bytes, size_t n), (fd, bytes, n))
READ(pread64, (int fd, void *bytes, size_t n, off64_t from), (fd, bytes, n, from))

int close(int fd) {
    int failing = struck_fd("close", fd);
    int result = REAL(close)(fd);
    return failing ? refuse() : result;
}

/* Calls told by a path, by a descriptor, and by two paths. */
#define BY_PATH(call, function, arguments, folder, path, values) \
    int function arguments { return struck_at(call, folder, path) ? refuse() : REAL(function) values; }
#define BY_FD(call, function, arguments, fd, values) \
    int function arguments { return struck_fd(call, fd) ? refuse() : REAL(function) values; }

BY_PATH("mkdir", mkdir, (const char *p, mode_t m), AT_FDCWD, p, (p, m))
BY_PATH("mkdir", mkdirat, (int d, const char *p, mode_t m), d, p, (d, p, m))
BY_PATH("unlink", unlink, (const char *p), AT_FDCWD, p, (p))
BY_PATH("unlink", unlinkat, (int d, const char *p, int f), d, p, (d, p, f))
BY_PATH("rmdir", rmdir, (const char *p), AT_FDCWD, p, (p))
BY_PATH("chmod", chmod, (const char *p, mode_t m), AT_FDCWD, p, (p, m))
BY_PATH("chmod", fchmodat, (int d, const char *p, mode_t m, int f), d, p, (d, p, m, f))
BY_PATH("rename", rename, (const char *a, const char *b), AT_FDCWD, b, (a, b))
BY_PATH("rename", renameat, (int d, const char *a, int e, const char *b), e, b, (d, a, e, b))
BY_PATH("rename", renameat2, (int d, const char *a, int e, const char *b, unsigned f), e, b, (d, a, e, b, f))
BY_PATH("link", link, (const char *a, const char *b), AT_FDCWD, b, (a, b))
BY_PATH("link", symlink, (const char *a, const char *b), AT_FDCWD, b, (a, b))
BY_PATH("utime", utimensat, (int d, const char *p, const struct timespec t[2], int f), d, p, (d, p, t, f))
BY_FD("utime", futimens, (int fd, const struct timespec t[2]), fd, (fd, t))
BY_FD("chmod", fchmod, (int fd, mode_t m), fd, (fd, m))
BY_FD("fsync", fsync, (int fd), fd, (fd))
BY_FD("fsync", fdatasync, (int fd), fd, (fd))
BY_FD("flock", flock, (int fd, int how), fd, (fd, how))
BY_FD("truncate", ftruncate, (int fd, off_t n), fd, (fd, n))
BY_FD("truncate", ftruncate64, (int fd, off64_t n), fd, (fd, n))
