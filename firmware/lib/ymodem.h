/* YMODEM receiver (CRC, 128-byte and 1K packets, one file a batch) without I/O: bytes and the time
 * (microseconds, any origin) are passed in, bytes and the file come out through callbacks. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum ymodem_status {
    YMODEM_RECEIVING = 0, /* under way, or waiting for a sender */
    YMODEM_DONE,          /* one whole file came, and the batch was ended */
    YMODEM_CANCELLED,     /* the sender gave up (CAN CAN) */
    YMODEM_TOO_LARGE,     /* the file is larger than the limit */
    YMODEM_SHORT,         /* the file ended before its announced size */
    YMODEM_BAD_HEADER,    /* the first packet makes no sense */
    YMODEM_OUT_OF_STEP,   /* packets were lost beyond repair */
    YMODEM_TIMED_OUT,     /* the sender fell silent, or sent nothing but errors */
    YMODEM_REFUSED,       /* a callback said no */
    YMODEM_NO_FILE,       /* the batch was empty */
    YMODEM_MORE_FILES,    /* a second file was offered */
    YMODEM_NO_HEADER,     /* a file began without one, as XMODEM sends it */
};

#define YMODEM_NAME_SIZE 64u
#define YMODEM_NEVER UINT64_MAX

struct ymodem_callbacks {
    void (*send)(void *ctx, const uint8_t *data, size_t length);
    /* A file begins. `size` is 0 when `size_known` is false. Non-zero refuses it. May be NULL. */
    int (*begin)(void *ctx, const char *name, bool size_known, uint32_t size);
    /* The file's bytes from `offset`, in order, each once; offset + length never exceeds the limit
     * nor the announced size. Non-zero ends the reception. */
    int (*data)(void *ctx, uint32_t offset, const uint8_t *data, size_t length);
    void *ctx;
};

struct ymodem {
    enum ymodem_status status;
    uint32_t received; /* bytes of the file */
    uint32_t size;     /* announced, if size_known */
    bool size_known;
    char name[YMODEM_NAME_SIZE]; /* printable ASCII, the rest shown as '?'; cut when longer */

    const struct ymodem_callbacks *callbacks; /* from here on private */
    uint32_t limit;
    uint8_t phase;
    uint8_t expected; /* number of the next packet, modulo 256 */
    bool any_data;
    bool eot_seen;
    bool can_seen;
    bool purging;
    uint8_t errors; /* in a row */
    uint64_t deadline;
    size_t filled;
    size_t wanted;
    uint8_t packet[3 + 1024 + 2];
};

/* Begin to receive a file of at most `limit` bytes; asks with 'C' once a second, for ever. */
void ymodem_start(struct ymodem *ymodem, const struct ymodem_callbacks *callbacks, uint32_t limit,
                  uint64_t now);

/* Bytes came. Does nothing once the status is another than YMODEM_RECEIVING. */
void ymodem_feed(struct ymodem *ymodem, const uint8_t *data, size_t length, uint64_t now);

/* Do what is due. Returns when to call again, or YMODEM_NEVER when it is over. */
uint64_t ymodem_poll(struct ymodem *ymodem, uint64_t now);

/* Stop from this side: CAN to the sender, status YMODEM_REFUSED. */
void ymodem_abort(struct ymodem *ymodem);

/* Whether a sender has been heard: a file is on its way. */
bool ymodem_has_begun(const struct ymodem *ymodem);

const char *ymodem_status_text(enum ymodem_status status);
