/* Preloaded into a process, on Linux.
 *
 * Kills it at the n-th call that has something reach the disk or the network, before the call is
 * carried out. Nothing is killed until kill_at() is called.
 *
 * Its disk is full as long as there is the file that the variable FULL names. Its file system
 * cannot be written as long as there is the one that READONLY names.
 */

#define _GNU_SOURCE

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static long left;

void kill_at(long number);

void kill_at(long number) {
    left = number;
}

static void *look_up(const char *name) {
    if (left > 0 && --left == 0) {
        (void)kill(getpid(), SIGKILL);
    }
    return dlsym(RTLD_NEXT, name);
}

int fsync(int file) {
    return ((int (*)(int))look_up("fsync"))(file);
}

int fdatasync(int file) {
    return ((int (*)(int))look_up("fdatasync"))(file);
}

ssize_t sendto(int to, const void *data, size_t size, int flags, const struct sockaddr *address,
               socklen_t address_size) {
    ssize_t (*real)(int, const void *, size_t, int, const struct sockaddr *, socklen_t) =
        (ssize_t (*)(int, const void *, size_t, int, const struct sockaddr *, socklen_t))look_up(
            "sendto");
    return real(to, data, size, flags, address, address_size);
}

static bool is_there(const char *variable) {
    const char *path = getenv(variable);
    return path != NULL && access(path, F_OK) == 0;
}

ssize_t pwrite64(int file, const void *data, size_t size, off64_t offset) {
    bool full = is_there("FULL");
    if (full || is_there("READONLY")) {
        errno = full ? ENOSPC : EROFS;
        return -1;
    }
    ssize_t (*real)(int, const void *, size_t, off64_t) =
        (ssize_t (*)(int, const void *, size_t, off64_t))dlsym(RTLD_NEXT, "pwrite64");
    return real(file, data, size, offset);
}

ssize_t pwrite(int file, const void *data, size_t size, off_t offset) {
    return pwrite64(file, data, size, offset);
}
