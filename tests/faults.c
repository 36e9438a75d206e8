/* Ends a process at the n-th change of a folder, or copies the folder before each change.

Preloaded (LD_PRELOAD) by tests/faults.py, which describes the variables:

  FAULTS_FOLDER  the folder that is watched, without a slash at the end
  FAULTS_LOG     takes one record of RECORD bytes for each point; the number of records is the number of points
  FAULTS_AT      number of the point at which the process that reaches it ends, counted from 1; 0 for never
  FAULTS_COPIES  takes a copy of the folder for each point, in a folder named by its number; empty for none

A point is the moment before a change, and, in a write of several bytes, the moment when half of them are written. The
log is locked from a point until the change is done, so the points of all threads and processes have one order, and no
copy has half a change. What the C library writes from its own buffers (fwrite) is not seen. */

#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#define RECORD 256
#define EXPORT __attribute__((visibility("default")))

static const char *setting(const char *name) {
  const char *value = getenv(name);
  return value ? value : "";
}

/* Returns whether `path` is below the watched folder. `directory` is what a relative path starts from. */
static int is_watched(int directory, const char *path, char *absolute) {
  const char *folder = setting("FAULTS_FOLDER");
  size_t length = strlen(folder);
  if (!length || !path) return 0;
  if (path[0] == '/') {
    snprintf(absolute, PATH_MAX, "%s", path);
  } else {
    char base[PATH_MAX] = "", link[64];
    snprintf(link, sizeof link, directory == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", directory);
    if (readlink(link, base, sizeof base - 1) < 0) return 0;
    if (snprintf(absolute, PATH_MAX, "%s/%s", base, path) >= PATH_MAX) return 0;
  }
  return !strncmp(absolute, folder, length) && absolute[length] == '/';
}

static int is_watched_file(int descriptor, char *absolute) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
  memset(absolute, 0, PATH_MAX);
  if (!*setting("FAULTS_FOLDER") || readlink(link, absolute, PATH_MAX - 1) < 0) return 0;
  const char *folder = setting("FAULTS_FOLDER");
  return !strncmp(absolute, folder, strlen(folder)) && absolute[strlen(folder)] == '/';
}

static void copy_folder(long number) {
  char target[PATH_MAX];
  struct stat status;
  if (stat(setting("FAULTS_FOLDER"), &status) < 0) return; /* not made yet */
  snprintf(target, sizeof target, "%s/%05ld", setting("FAULTS_COPIES"), number);
  char *const arguments[] = {"cp", "-a", "--", (char *)setting("FAULTS_FOLDER"), target, NULL};
  char *const environment[] = {"PATH=/usr/bin:/bin", NULL};
  pid_t child;
  if (posix_spawnp(&child, "cp", NULL, NULL, arguments, environment) == 0)
    while (waitpid(child, NULL, 0) < 0 && errno == EINTR) {}
}

/* Counts a point: notes it, copies the folder, or ends the process. */
static void reach(int log, const char *what, const char *path) {
  struct stat status;
  fstat(log, &status);
  long number = status.st_size / RECORD + 1;
  char record[RECORD];
  memset(record, ' ', RECORD);
  record[RECORD - 1] = '\n';
  const char *below = path + strlen(setting("FAULTS_FOLDER")) + 1;
  int used = snprintf(record, RECORD - 1, "%s %s", what, below);
  if (used > RECORD - 2) used = RECORD - 2;
  record[used] = ' ';
  syscall(SYS_write, log, record, RECORD);
  if (*setting("FAULTS_COPIES")) copy_folder(number);
  if (number == atol(setting("FAULTS_AT"))) {
    kill(getpid(), SIGKILL);
    for (;;) pause();
  }
}

/* Locks the log and counts the point before a change; returns what `end` takes. */
static int begin(const char *what, const char *path) {
  int before = errno;
  int log = (int)syscall(SYS_openat, AT_FDCWD, setting("FAULTS_LOG"), O_RDWR | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  while (flock(log, LOCK_EX) < 0 && errno == EINTR) {}
  reach(log, what, path);
  errno = before;
  return log;
}

static void end(int log) {
  int before = errno;
  syscall(SYS_close, log);
  errno = before;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* ------------------------------------------------------------------------------------------------------ writes */

#define WRITE(name, parameters, first, second)                  \
  EXPORT ssize_t name parameters {                              \
    char path[PATH_MAX];                                        \
    if (!size || !is_watched_file(file, path)) return first;    \
    size_t whole = size;                                        \
    ssize_t done = 0;                                           \
    int log = begin("write", path);                             \
    if (size > 1) {                                             \
      size = whole / 2;                                         \
      done = first;                                             \
      if (done == (ssize_t)size) reach(log, "half-write", path);\
      size = whole - size;                                      \
    }                                                           \
    ssize_t rest = done == (ssize_t)(whole / 2) ? second : 0;   \
    end(log);                                                   \
    return rest < 0 ? rest : done < 0 ? done : done + rest;     \
  }

WRITE(write, (int file, const void *data, size_t size), REAL(write)(file, data, size),
      REAL(write)(file, (const char *)data + done, size))
WRITE(pwrite, (int file, const void *data, size_t size, off_t at), REAL(pwrite)(file, data, size, at),
      REAL(pwrite)(file, (const char *)data + done, size, at + done))
WRITE(pwrite64, (int file, const void *data, size_t size, off64_t at), REAL(pwrite64)(file, data, size, at),
      REAL(pwrite64)(file, (const char *)data + done, size, at + done))

#define CHANGE_OF_FILE(type, name, parameters, file, call) \
  EXPORT type name parameters {                            \
    char path[PATH_MAX];                                   \
    if (!is_watched_file(file, path)) return call;         \
    int log = begin(#name, path);                          \
    type result = call;                                    \
    end(log);                                              \
    return result;                                         \
  }

CHANGE_OF_FILE(ssize_t, writev, (int file, const struct iovec *parts, int count), file,
               REAL(writev)(file, parts, count))
CHANGE_OF_FILE(ssize_t, pwritev, (int file, const struct iovec *parts, int count, off_t at), file,
               REAL(pwritev)(file, parts, count, at))
CHANGE_OF_FILE(ssize_t, pwritev64, (int file, const struct iovec *parts, int count, off64_t at), file,
               REAL(pwritev64)(file, parts, count, at))
CHANGE_OF_FILE(ssize_t, sendfile, (int file, int from, off_t *at, size_t size), file,
               REAL(sendfile)(file, from, at, size))
CHANGE_OF_FILE(ssize_t, sendfile64, (int file, int from, off64_t *at, size_t size), file,
               REAL(sendfile64)(file, from, at, size))
CHANGE_OF_FILE(ssize_t, copy_file_range,
               (int from, off64_t *from_at, int file, off64_t *at, size_t size, unsigned flags), file,
               REAL(copy_file_range)(from, from_at, file, at, size, flags))
CHANGE_OF_FILE(int, ftruncate, (int file, off_t size), file, REAL(ftruncate)(file, size))
CHANGE_OF_FILE(int, ftruncate64, (int file, off64_t size), file, REAL(ftruncate64)(file, size))

/* ---------------------------------------------------------------------------------------------- names of files */

#define CHANGE_OF_PATH(name, parameters, directory, file, call) \
  EXPORT int name parameters {                                  \
    char path[PATH_MAX];                                        \
    if (!is_watched(directory, file, path)) return call;        \
    int log = begin(#name, path);                               \
    int result = call;                                          \
    end(log);                                                   \
    return result;                                              \
  }

CHANGE_OF_PATH(rename, (const char *from, const char *to), AT_FDCWD, to, REAL(rename)(from, to))
CHANGE_OF_PATH(renameat, (int a, const char *from, int b, const char *to), b, to, REAL(renameat)(a, from, b, to))
CHANGE_OF_PATH(renameat2, (int a, const char *from, int b, const char *to, unsigned flags), b, to,
               REAL(renameat2)(a, from, b, to, flags))
CHANGE_OF_PATH(link, (const char *from, const char *to), AT_FDCWD, to, REAL(link)(from, to))
CHANGE_OF_PATH(linkat, (int a, const char *from, int b, const char *to, int flags), b, to,
               REAL(linkat)(a, from, b, to, flags))
CHANGE_OF_PATH(symlink, (const char *text, const char *to), AT_FDCWD, to, REAL(symlink)(text, to))
CHANGE_OF_PATH(symlinkat, (const char *text, int b, const char *to), b, to, REAL(symlinkat)(text, b, to))
CHANGE_OF_PATH(unlink, (const char *name), AT_FDCWD, name, REAL(unlink)(name))
CHANGE_OF_PATH(unlinkat, (int a, const char *name, int flags), a, name, REAL(unlinkat)(a, name, flags))
CHANGE_OF_PATH(remove, (const char *name), AT_FDCWD, name, REAL(remove)(name))
CHANGE_OF_PATH(rmdir, (const char *name), AT_FDCWD, name, REAL(rmdir)(name))
CHANGE_OF_PATH(mkdir, (const char *name, mode_t mode), AT_FDCWD, name, REAL(mkdir)(name, mode))
CHANGE_OF_PATH(mkdirat, (int a, const char *name, mode_t mode), a, name, REAL(mkdirat)(a, name, mode))
CHANGE_OF_PATH(truncate, (const char *name, off_t size), AT_FDCWD, name, REAL(truncate)(name, size))

/* Opening a file is a change if it makes the file or empties it. */
static int open_file(int directory, const char *name, int flags, mode_t mode) {
  char path[PATH_MAX];
  int watched = (flags & (O_CREAT | O_TRUNC)) && is_watched(directory, name, path);
  if (watched && !(flags & O_TRUNC)) {
    struct stat status;
    watched = fstatat(directory, name, &status, AT_SYMLINK_NOFOLLOW) < 0;
  }
  int log = watched ? begin("open", path) : -1;
  int result = (int)syscall(SYS_openat, directory, name, flags, mode);
  if (watched) end(log);
  return result;
}

#define OPEN(name, parameters, last, directory, extra)          \
  EXPORT int name parameters {                                  \
    mode_t mode = 0;                                            \
    if (flags & O_CREAT || (flags & O_TMPFILE) == O_TMPFILE) {  \
      va_list rest;                                             \
      va_start(rest, last);                                     \
      mode = va_arg(rest, mode_t);                              \
      va_end(rest);                                             \
    }                                                           \
    return open_file(directory, path, flags | extra, mode);     \
  }

OPEN(open, (const char *path, int flags, ...), flags, AT_FDCWD, 0)
OPEN(open64, (const char *path, int flags, ...), flags, AT_FDCWD, O_LARGEFILE)
OPEN(openat, (int directory, const char *path, int flags, ...), flags, directory, 0)
OPEN(openat64, (int directory, const char *path, int flags, ...), flags, directory, O_LARGEFILE)
EXPORT int creat(const char *path, mode_t mode) {
  return open_file(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode);
}
