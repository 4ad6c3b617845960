/* A disk between a program and the real one: it writes down what reaches the disk, or fails.
 *
 * Loaded with LD_PRELOAD; it looks only at files below the folder DISK_FOLDER.
 *   DISK_LOG    a file: every write, truncation, sync and change of a name is appended to it with
 *               its bytes, in the order in which it happened, for cuts.py to replay.
 *   DISK_NOSYNC set: no sync is passed on to the real disk, which only saves time.
 * disk_arm(k, error, forever, from) makes the k-th call from now fail with an errno, and with
 * forever every one after it; disk_disarm() ends that and says how many calls there were.
 * The idea is SQLite's own test VFS (sqlite.org/testing.html, 3.1 to 3.3) and LazyFS (VLDB 17(11)).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { GROWS = 1, SYNCS = 2, SHRINKS = 4, NAMES = 8 };

struct record {
    uint8_t kind; /* w write, t truncate, s sync, d sync of a folder, c create, l link, r rename, u unlink */
    uint64_t inode;
    int64_t offset; /* or the new size */
    uint32_t first; /* bytes of the data, or of the first name */
    uint32_t second;
} __attribute__((packed));

static pthread_mutex_t lock = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static char folder[PATH_MAX];
static size_t folder_size;
static int log_file = -1, no_sync, ready;
static long calls, fail_at;
static int fail_with, fail_forever, fail_kinds;

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name);

static void start(void) {
    if (ready) return;
    ready = 1;
    const char *text = getenv("DISK_FOLDER");
    if (!text || !realpath(text, folder)) return;
    folder_size = strlen(folder);
    no_sync = getenv("DISK_NOSYNC") != NULL;
    text = getenv("DISK_LOG");
    if (text) log_file = syscall(SYS_openat, AT_FDCWD, text,
                                 O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static const char *inside(const char *path) {
    start();
    if (!folder_size || !path || strncmp(path, folder, folder_size)) return NULL;
    if (path[folder_size] == 0) return path + folder_size;
    return path[folder_size] == '/' ? path + folder_size + 1 : NULL;
}

static int ours(int file, struct stat *facts) {
    char name[64], path[PATH_MAX];
    start();
    if (!folder_size || file == log_file) return 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    ssize_t size = readlink(name, path, sizeof path - 1);
    if (size < 0) return 0;
    path[size] = 0;
    return inside(path) && fstat(file, facts) == 0;
}

static int fails(int kind) {
    if (!fail_at || !(kind & fail_kinds)) return 0;
    calls++;
    if (calls < fail_at || (calls > fail_at && !fail_forever)) return 0;
    errno = fail_with;
    return 1;
}

static void note(uint8_t kind, uint64_t inode, int64_t offset, const void *first, size_t size,
                 const char *second) {
    if (log_file < 0) return;
    int kept = errno;
    struct record head = {kind, inode, offset, size, second ? strlen(second) : 0};
    struct iovec parts[3] = {
        {&head, sizeof head}, {(void *)first, size}, {(void *)second, head.second}};
    if (writev(log_file, parts, 3) != (ssize_t)(sizeof head + size + head.second)) abort();
    errno = kept;
}

static void named(uint8_t kind, const char *first, const char *second) {
    note(kind, 0, 0, first, strlen(first), second);
}

void disk_arm(long at, int error, int forever, int kinds) {
    pthread_mutex_lock(&lock);
    calls = 0, fail_at = at, fail_with = error, fail_forever = forever, fail_kinds = kinds;
    pthread_mutex_unlock(&lock);
}

long disk_disarm(void) {
    pthread_mutex_lock(&lock);
    fail_at = 0;
    long count = calls;
    pthread_mutex_unlock(&lock);
    return count;
}

#define DISK(result, body) \
    pthread_mutex_lock(&lock); \
    result answer = -1; \
    body \
    pthread_mutex_unlock(&lock); \
    return answer;

ssize_t write(int file, const void *data, size_t size) {
    REAL(write)
    struct stat facts;
    if (!ours(file, &facts)) return real(file, data, size);
    DISK(ssize_t, if (!fails(GROWS)) {
        off_t end = lseek(file, 0, SEEK_CUR);
        answer = real(file, data, size);
        if (fcntl(file, F_GETFL) & O_APPEND) end = lseek(file, 0, SEEK_CUR) - answer;
        if (answer > 0) note('w', facts.st_ino, end, data, answer, NULL);
    })
}

#define PWRITE(name, offset_type) \
    ssize_t name(int file, const void *data, size_t size, offset_type offset) { \
        REAL(name) \
        struct stat facts; \
        if (!ours(file, &facts)) return real(file, data, size, offset); \
        DISK(ssize_t, if (!fails(GROWS)) { \
            answer = real(file, data, size, offset); \
            if (answer > 0) note('w', facts.st_ino, offset, data, answer, NULL); \
        }) \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define TRUNCATE(name, offset_type) \
    int name(int file, offset_type size) { \
        REAL(name) \
        struct stat facts; \
        if (!ours(file, &facts)) return real(file, size); \
        DISK(int, if (!fails(size > facts.st_size ? GROWS : SHRINKS)) { \
            answer = real(file, size); \
            if (answer == 0) note('t', facts.st_ino, size, NULL, 0, NULL); \
        }) \
    }
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

#define SYNC(name) \
    int name(int file) { \
        REAL(name) \
        struct stat facts; \
        if (!ours(file, &facts)) return real(file); \
        DISK(int, if (!fails(SYNCS)) { \
            answer = no_sync ? 0 : real(file); \
            uint8_t kind = S_ISDIR(facts.st_mode) ? 'd' : 's'; \
            if (answer == 0) note(kind, facts.st_ino, 0, NULL, 0, NULL); \
        }) \
    }
SYNC(fsync)
SYNC(fdatasync)

static int opened(const char *path, int flags, const char *name, int (*go)(void *), void *what) {
    struct stat facts;
    pthread_mutex_lock(&lock);
    int there = stat(path, &facts) == 0, answer = -1;
    int makes = !there && (flags & O_CREAT);
    if (!makes || !fails(GROWS)) answer = go(what);
    if (answer >= 0 && (makes || (there && (flags & O_TRUNC))) && fstat(answer, &facts) == 0) {
        if (makes) note('c', facts.st_ino, 0, name, strlen(name), NULL);
        else note('t', facts.st_ino, 0, NULL, 0, NULL);
    }
    pthread_mutex_unlock(&lock);
    return answer;
}

struct opening {
    void *real;
    int at, flags, mode;
    const char *path;
};

static int go_open(void *what) {
    struct opening *one = what;
    return ((int (*)(const char *, int, ...))one->real)(one->path, one->flags, one->mode);
}

static int go_openat(void *what) {
    struct opening *one = what;
    return ((int (*)(int, const char *, int, ...))one->real)(one->at, one->path, one->flags,
                                                             one->mode);
}

#define MODE \
    int mode = 0; \
    if (flags & (O_CREAT | __O_TMPFILE)) { \
        va_list more; \
        va_start(more, flags); \
        mode = va_arg(more, int); \
        va_end(more); \
    }

#define OPEN(name) \
    int name(const char *path, int flags, ...) { \
        REAL(name) \
        MODE \
        struct opening one = {(void *)real, 0, flags, mode, path}; \
        const char *below = inside(path); \
        return below ? opened(path, flags, below, go_open, &one) : go_open(&one); \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
    int name(int at, const char *path, int flags, ...) { \
        REAL(name) \
        MODE \
        struct opening one = {(void *)real, at, flags, mode, path}; \
        const char *below = inside(path); \
        return below ? opened(path, flags, below, go_openat, &one) : go_openat(&one); \
    }
OPENAT(openat)
OPENAT(openat64)

#define ONE_NAME(call) \
    const char *below = inside(path); \
    if (!below) return call; \
    DISK(int, if (!fails(NAMES)) { \
        answer = call; \
        if (answer == 0) named('u', below, NULL); \
    })

int unlink(const char *path) {
    REAL(unlink)
    ONE_NAME(real(path))
}

int unlinkat(int at, const char *path, int flags) {
    REAL(unlinkat)
    ONE_NAME(real(at, path, flags))
}

#define TWO_NAMES(kind, call) \
    const char *first = inside(from), *second = inside(to); \
    if (!first || !second) return call; \
    DISK(int, if (!fails(kind == 'l' ? NAMES | GROWS : NAMES)) { \
        answer = call; \
        if (answer == 0) named(kind, first, second); \
    })

int rename(const char *from, const char *to) {
    REAL(rename)
    TWO_NAMES('r', real(from, to))
}

int renameat(int at, const char *from, int then, const char *to) {
    REAL(renameat)
    TWO_NAMES('r', real(at, from, then, to))
}

int link(const char *from, const char *to) {
    REAL(link)
    TWO_NAMES('l', real(from, to))
}

int linkat(int at, const char *from, int then, const char *to, int flags) {
    REAL(linkat)
    TWO_NAMES('l', real(at, from, then, to, flags))
}

/* Ways to copy without writing: refused, so that programs fall back to write. */
#define SENDFILE(name, offset_type) \
    ssize_t name(int to, int from, offset_type *offset, size_t size) { \
        REAL(name) \
        struct stat facts; \
        if (!ours(to, &facts)) return real(to, from, offset, size); \
        errno = ENOSYS; \
        return -1; \
    }
SENDFILE(sendfile, off_t)
SENDFILE(sendfile64, off64_t)

ssize_t copy_file_range(int from, off64_t *in, int to, off64_t *out, size_t size, unsigned flags) {
    REAL(copy_file_range)
    struct stat facts;
    if (!ours(to, &facts)) return real(from, in, to, out, size, flags);
    errno = ENOSYS;
    return -1;
}
