#include "resident/restoration.h"

#include <string.h>

#include "agent/agent.h"
#include "board/say.h"
#include "board/timer.h"
#include "board/uart.h"
#include "board/verify.h"
#include "board_map.h"
#include "lib/result.h"
#include "lib/ymodem.h"
#include "resident/by_link.h"
#include "resident/resident.h"

/* The wire falls silent for so long before a person is told something. */
#define SILENCE_US 200000u
/* How long the wireless link may be left to itself. */
#define TICK_US 20000u

/* What comes over the wire lies at the pool's start, what comes over the link at its end. */
static uint8_t *const pool = (uint8_t *)BOARD_POOL_BASE;
static struct ymodem ymodem;
static bool open; /* the wire is listened to */

static void drain(void *ctx) {
    (void)ctx;
    uart_poll();
}

static void send(void *ctx, const uint8_t *data, size_t length) {
    (void)ctx;
    uart_write(UART_WIRE, data, length);
}

static int begin(void *ctx, const char *name, bool size_known, uint32_t size) {
    (void)ctx;
    (void)name;
    return size_known && size > RESIDENT_POOL_SIZE - by_link_held();
}

static int store(void *ctx, uint32_t offset, const uint8_t *data, size_t length) {
    (void)ctx;
    if (offset + length > RESIDENT_POOL_SIZE - by_link_held()) {
        return 1;
    }
    memcpy(pool + offset, data, length);
    return 0;
}

static void listen(void) {
    static const struct ymodem_callbacks callbacks = {.send = send, .begin = begin, .data = store};
    ymodem_start(&ymodem, &callbacks, RESIDENT_POOL_SIZE, timer_now());
}

/* Takes what has come over the wire. Returns whether something has. */
static bool poll_wire(void) {
    uint8_t bytes[64];
    size_t length = 0;
    int byte;
    while (length < sizeof bytes && (byte = uart_get(UART_WIRE)) >= 0) {
        bytes[length++] = (uint8_t)byte;
    }
    ymodem_feed(&ymodem, bytes, length, timer_now());
    return length > 0;
}

/* What a file that is announced now may take, without touching what the wire may bring. */
static uint32_t room_for_link(void) {
    if (!restoration_is_receiving()) {
        return RESIDENT_POOL_SIZE;
    }
    return ymodem.size_known && ymodem.size < RESIDENT_POOL_SIZE ? RESIDENT_POOL_SIZE - ymodem.size
                                                                 : 0;
}

/* Lets a sender that has not noticed yet that it is over talk to the end. */
static void await_silence(void) {
    uint64_t end = timer_now() + SILENCE_US;
    while (timer_now() < end) {
        uart_poll();
        while (uart_get(UART_WIRE) >= 0) {
            end = timer_now() + SILENCE_US;
        }
        timer_sleep_until(end);
    }
}

/* Whether the file that was received can be installed; `problem` says in words why not. */
static enum result check(const struct terminal *terminal, const uint8_t *file, uint32_t length,
                         struct image *image, const char **problem) {
    const struct verify_rules rules = {
        .hardware_id = terminal->id.hardware_id,
        .minimum_counter = terminal->journal.state.security_counter,
        .partition_size = BOARD_APPLICATION_SIZE,
        .progress = drain,
    };
    const int error = image_parse(image, file, length);
    if (error != IMAGE_OK) {
        *problem = image_error_text(error);
        return image_error_result(error);
    }
    const int result = verify_image(file, length, &rules, image);
    *problem = result_text(result);
    return (enum result)result;
}

static int announce_rewrite(struct journal *journal, const struct image *image,
                            enum journal_source source, uint32_t update_id) {
    struct journal_state state = journal->state;
    state.phase = JOURNAL_REWRITING;
    state.starts = 0;
    state.source = source;
    if (source == JOURNAL_LINK) { /* else the update that failed keeps its number */
        state.update_id = update_id;
        state.result = RESULT_SUCCESS;
    }
    state.target_version = (struct journal_version){
        .major = image->version.major,
        .minor = image->version.minor,
        .revision = image->version.revision,
        .build = image->version.build,
    };
    state.target_size = image->total;
    memcpy(state.target_digest, image->digest, sizeof state.target_digest);
    return journal_write(journal, &state);
}

/* Returns why it cannot, or does not return. */
static const char *install(struct terminal *terminal, const struct image *image,
                           enum journal_source source, uint32_t update_id) {
    const int error = announce_rewrite(&terminal->journal, image, source, update_id);
    if (error) {
        say("restoration: the journal cannot be written: %s\n", recordlog_error_text(error));
        return "the journal cannot be written";
    }
    char version[IMAGE_VERSION_TEXT_SIZE];
    image_version_text(&image->version, version);
    say("restoration: accepted %s\n", version);
    uart_flush(UART_WIRE);
    uart_flush(UART_RADIO);
    AGENT->rewrite(&(struct rewrite_job){
        .image = image->start,
        .length = image->total,
        .offset = BOARD_APPLICATION_OFFSET,
    });
}

static void take_from_wire(struct terminal *terminal) {
    await_silence();
    struct image image;
    const char *problem = ymodem_status_text(ymodem.status);
    if (ymodem.status == YMODEM_DONE &&
        check(terminal, pool, ymodem.received, &image, &problem) == RESULT_SUCCESS) {
        problem = install(terminal, &image, JOURNAL_WIRE, 0);
    }
    say("restoration: refused, %s\n", problem);
}

static void take_from_link(struct terminal *terminal, const struct by_link_file *file) {
    struct image image;
    const char *problem;
    enum result result = check(terminal, file->data, file->length, &image, &problem);
    if (result == RESULT_SUCCESS && image.total != file->length) {
        result = RESULT_IMAGE_MALFORMED;
    }
    if (result == RESULT_SUCCESS &&
        memcmp(image.digest, file->image_digest, IMAGE_DIGEST_SIZE) != 0) {
        result = RESULT_IMAGE_HASH;
    }
    if (result == RESULT_SUCCESS) {
        by_link_retry(install(terminal, &image, JOURNAL_LINK, file->update_id));
    } else {
        by_link_refuse(result);
    }
}

void restoration_open_wire(const struct restoration *restoration) {
    const struct terminal *terminal = restoration->terminal;
    say("restoration: %s%s\n", restoration->reason, restoration->detail);
    say("restoration: serial=%s hardware=%s counter=%u\n", terminal->id.serial,
        terminal->id.hardware_id, (unsigned)terminal->journal.state.security_counter);
    say("restoration: send the signed image by YMODEM\n");
    listen();
    open = true;
}

bool restoration_is_receiving(void) {
    return open && ymodem_has_begun(&ymodem);
}

/* Returns when the wire wants its next turn. */
static uint64_t serve_wire(struct terminal *terminal, bool *heard) {
    if (!open) {
        while (uart_get(UART_WIRE) >= 0) {
        }
        return TIMER_NEVER;
    }
    const uint64_t due = ymodem_poll(&ymodem, timer_now());
    *heard = poll_wire();
    if (ymodem.status != YMODEM_RECEIVING) {
        take_from_wire(terminal);
        listen();
    }
    return due;
}

uint64_t restoration_serve(struct terminal *terminal) {
    bool heard = false;
    const uint64_t due = serve_wire(terminal, &heard);
    const bool sending = restoration_is_receiving();
    by_link_poll(timer_now(), room_for_link(), sending);
    /* A person who is sending something may end that; it is what this terminal gets then. */
    const struct by_link_file *file = by_link_file();
    if (file && !sending) {
        take_from_link(terminal, file);
    }
    const uint64_t now = timer_now();
    const uint64_t tick = now + TICK_US;
    return heard ? now : due < tick ? due : tick;
}

void restoration(const struct restoration *restoration) {
    restoration_open_wire(restoration);
    by_link_start(restoration->terminal, NULL);
    for (;;) {
        timer_sleep_until(restoration_serve(restoration->terminal));
    }
}
