/* Preloaded into a process: makes one of its writes fail, as a failing or full disk does, or be its last.
 *
 * Calls that change a file below the folder in DISK_FAULTS_FOLDER are counted. From the first that is armed on,
 * one of them or all fail with the armed error; where that is 0, the process is killed. Half of the bytes of such
 * a write do reach the file.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

static long num_calls, first_failing; /* 1-based; 0: none fails */
static int error_number, fails_from_then_on;
static const char *failed_call = "";

void disk_faults_arm(long first, int error, int from_then_on) {
  num_calls = 0;
  first_failing = first;
  error_number = error;
  fails_from_then_on = from_then_on;
  failed_call = "";
}

void disk_faults_lift(void) { first_failing = 0; }

long disk_faults_num_calls(void) { return num_calls; }

/* The first call that failed, "" where none has. */
const char *disk_faults_failed_call(void) { return failed_call; }

static int is_watched(int fd) {
  static const char *folder;
  char link[64], path[4096];
  if (!folder && !(folder = getenv("DISK_FAULTS_FOLDER")))
    return 0;
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  return length >= (ssize_t)strlen(folder) && !strncmp(path, folder, strlen(folder));
}

static int fails(int fd, const char *call) {
  int saved = errno;
  int watched = is_watched(fd);
  errno = saved;
  if (!watched)
    return 0;
  ++num_calls;
  if (!first_failing || num_calls < first_failing || (num_calls > first_failing && !fails_from_then_on))
    return 0;
  if (!*failed_call)
    failed_call = call;
  return 1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int failed(void) {
  if (!error_number)
    kill(getpid(), SIGKILL);
  errno = error_number;
  return -1;
}

ssize_t write(int fd, const void *bytes, size_t size) {
  if (!fails(fd, "write"))
    return REAL(write)(fd, bytes, size);
  REAL(write)(fd, bytes, size / 2);
  return failed();
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset) {
  if (!fails(fd, "pwrite"))
    return REAL(pwrite)(fd, bytes, size, offset);
  REAL(pwrite)(fd, bytes, size / 2, offset);
  return failed();
}

ssize_t pwrite64(int fd, const void *bytes, size_t size, off64_t offset) {
  if (!fails(fd, "pwrite"))
    return REAL(pwrite64)(fd, bytes, size, offset);
  REAL(pwrite64)(fd, bytes, size / 2, offset);
  return failed();
}

/* What reaches the disk's surface cannot be seen without a loss of power: saves the time. */
int fsync(int fd) { return fails(fd, "fsync") ? failed() : is_watched(fd) ? 0 : REAL(fsync)(fd); }

int fdatasync(int fd) { return fails(fd, "fsync") ? failed() : is_watched(fd) ? 0 : REAL(fdatasync)(fd); }

int ftruncate(int fd, off_t size) { return fails(fd, "ftruncate") ? failed() : REAL(ftruncate)(fd, size); }

int ftruncate64(int fd, off64_t size) { return fails(fd, "ftruncate") ? failed() : REAL(ftruncate64)(fd, size); }
