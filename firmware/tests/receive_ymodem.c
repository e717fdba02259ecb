/* Receives one file by YMODEM on standard input and output, like the terminal does on its wire, and
 * writes it to a path. For trying the receiver with real senders:
 *
 *     receive_ymodem PATH LIMIT
 *
 * Ends with the status (1: a whole file came) and says it on standard error. */
#define _POSIX_C_SOURCE 200809L

#include <poll.h>
#include <time.h>
#include <unistd.h>

#include "lib/ymodem.h"
#include "tests/check.h"

static uint64_t now(void) {
    struct timespec time;
    CHECK(clock_gettime(CLOCK_MONOTONIC, &time) == 0);
    return (uint64_t)time.tv_sec * 1000000 + (uint64_t)time.tv_nsec / 1000;
}

static void on_send(void *ctx, const uint8_t *data, size_t length) {
    (void)ctx;
    while (length > 0) {
        const ssize_t written = write(STDOUT_FILENO, data, length);
        if (written <= 0) {
            return; /* nobody is there to hear it */
        }
        data += written;
        length -= (size_t)written;
    }
}

static int on_data(void *ctx, uint32_t offset, const uint8_t *data, size_t length) {
    (void)offset;
    return fwrite(data, 1, length, ctx) != length;
}

int main(int argc, char **argv) {
    CHECK(argc == 3);
    FILE *file = fopen(argv[1], "wb");
    CHECK(file != NULL);
    const struct ymodem_callbacks callbacks = {on_send, NULL, on_data, file};
    static struct ymodem ymodem;
    ymodem_start(&ymodem, &callbacks, (uint32_t)strtoul(argv[2], NULL, 10), now());
    uint64_t deadline = ymodem_poll(&ymodem, now());
    while (deadline != YMODEM_NEVER) {
        struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
        uint8_t bytes[256];
        const uint64_t time = now();
        poll(&input, 1, deadline > time ? (int)((deadline - time) / 1000 + 1) : 0);
        if (input.revents != 0) {
            const ssize_t count = read(STDIN_FILENO, bytes, sizeof bytes);
            if (count <= 0) {
                break;
            }
            ymodem_feed(&ymodem, bytes, (size_t)count, now());
        }
        deadline = ymodem_poll(&ymodem, now());
    }
    CHECK(fclose(file) == 0);
    fprintf(stderr, "%s: %s, %u bytes\n", ymodem.name, ymodem_status_text(ymodem.status),
            (unsigned)ymodem.received);
    return (int)ymodem.status;
}
