/* A key-value store: each key is a file of littlefs. A line at the console is a request. */
#include <string.h>

#include "chip.h"
#include "lfs.h"
#include "pages.h"
#include "request.h"

enum { CACHE_SIZE = 64, LOOKAHEAD_SIZE = 8 }; /* bytes */

static const char fresh[] = "fresh"; /* a value that is not its key's yet */

static struct {
    lfs_t fs;
    uint8_t read[CACHE_SIZE], program[CACHE_SIZE], file[CACHE_SIZE];
    uint8_t lookahead[LOOKAHEAD_SIZE];
} store;

static const struct lfs_config config = {
    .read = pages_read,
    .prog = pages_program,
    .erase = pages_erase,
    .sync = pages_sync,
    .read_size = sizeof(uint32_t),
    .prog_size = sizeof(uint32_t),
    .block_size = FLASH_PAGE_SIZE,
    .block_count = PAGE_COUNT,
    .block_cycles = -1, /* metadata stays where it is */
    .cache_size = CACHE_SIZE,
    .lookahead_size = LOOKAHEAD_SIZE,
    .read_buffer = store.read,
    .prog_buffer = store.program,
    .lookahead_buffer = store.lookahead,
};

static const struct lfs_file_config file_config = {.buffer = store.file};

static int open(lfs_file_t *file, const char *name, int flags) {
    memset(file, 0, sizeof *file);
    return lfs_file_opencfg(&store.fs, file, name, flags, &file_config);
}

static int write_file(const char *name, const char *value) {
    lfs_file_t file;
    int error = open(&file, name, LFS_O_WRONLY | LFS_O_CREAT | LFS_O_TRUNC);
    if (error) {
        return error;
    }
    const lfs_ssize_t written = lfs_file_write(&store.fs, &file, value, strlen(value));
    error = lfs_file_close(&store.fs, &file);
    return written < 0 ? (int)written : error;
}

static void answer(int error) {
    print(error ? "failed\r\n" : "ok\r\n");
}

static void put(const char *key, const char *value) {
    int error = write_file(fresh, value);
    if (!error) {
        error = lfs_rename(&store.fs, fresh, key);
    }
    answer(error);
}

static void get(const char *key) {
    static char value[MOST_LINE + 1];
    lfs_file_t file;
    if (open(&file, key, LFS_O_RDONLY)) {
        print("nothing\r\n");
        return;
    }
    const lfs_ssize_t size = lfs_file_read(&store.fs, &file, value, MOST_LINE);
    if (size < 0 || lfs_file_close(&store.fs, &file)) {
        print("failed\r\n");
        return;
    }
    value[size] = '\0';
    print("is ");
    print(value);
    print("\r\n");
}

static void answer_request(const struct request *request) {
    if (strcmp(request->word, "put") == 0) {
        put(request->key, request->value);
    } else if (strcmp(request->word, "get") == 0) {
        get(request->key);
    } else if (strcmp(request->word, "format") == 0) {
        answer(lfs_format(&store.fs, &config) || lfs_mount(&store.fs, &config));
    } else if (strcmp(request->word, "bye") == 0) {
        print(lfs_unmount(&store.fs) ? "failed\r\n" : "the store is closed\r\n");
    } else {
        print("put KEY VALUE, get KEY, bye, or format\r\n");
    }
}

int main(void) {
    static struct request request;
    uart_start();
    memset(&store, 0, sizeof store);
    pages_start();
    print(lfs_mount(&store.fs, &config) ? "there is no store\r\n" : "the store is open\r\n");
    for (;;) {
        print("> ");
        read_request(&request);
        answer_request(&request);
    }
}
