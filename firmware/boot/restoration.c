#include "boot/restoration.h"

#include "agent/agent.h"
#include "board/say.h"
#include "board/timer.h"
#include "board/uart.h"
#include "board/verify.h"
#include "board_map.h"
#include "lib/image.h"
#include "lib/result.h"
#include "lib/ymodem.h"
#include <string.h>

/* The wire falls silent for so long before a person is told something. */
#define SILENCE_US 200000u

static uint8_t *const pool = (uint8_t *)BOARD_POOL_BASE;

static void drain(void *ctx) {
    (void)ctx;
    uart_poll();
}

static void send(void *ctx, const uint8_t *data, size_t length) {
    (void)ctx;
    uart_write(UART_WIRE, data, length);
}

static int store(void *ctx, uint32_t offset, const uint8_t *data, size_t length) {
    (void)ctx;
    memcpy(pool + offset, data, length);
    return 0;
}

/* Receives one file into the pool; `ymodem` says how it went. */
static void receive(struct ymodem *ymodem) {
    static const struct ymodem_callbacks callbacks = {.send = send, .data = store};
    ymodem_start(ymodem, &callbacks, BOARD_POOL_SIZE, timer_now());
    while (ymodem->status == YMODEM_RECEIVING) {
        const uint64_t deadline = ymodem_poll(ymodem, timer_now());
        uint8_t bytes[64];
        size_t length = 0;
        uart_poll(); /* the radio's, too: what waits there would keep us from sleeping */
        int byte;
        while (length < sizeof bytes && (byte = uart_get(UART_WIRE)) >= 0) {
            bytes[length++] = (uint8_t)byte;
        }
        if (length > 0) {
            ymodem_feed(ymodem, bytes, length, timer_now());
        } else {
            timer_sleep_until(deadline);
        }
    }
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

/* Says why the file that was received cannot be installed, or returns NULL. */
static const char *check(const struct restoration *restoration, uint32_t length,
                         struct image *image) {
    const struct verify_rules rules = {
        .hardware_id = restoration->id->hardware_id,
        .minimum_counter = restoration->journal->state.security_counter,
        .partition_size = BOARD_APPLICATION_SIZE,
        .progress = drain,
    };
    const int error = image_parse(image, pool, length);
    if (error != IMAGE_OK) {
        return image_error_text(error);
    }
    const int result = verify_image(pool, length, &rules, image);
    return result == RESULT_SUCCESS ? NULL : result_text(result);
}

static int announce_rewrite(struct journal *journal, const struct image *image) {
    struct journal_state state = journal->state; /* the update that failed keeps its number */
    state.phase = JOURNAL_REWRITING;
    state.starts = 0;
    state.source = JOURNAL_WIRE;
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

void restoration(const struct restoration *restoration) {
    static struct ymodem ymodem;
    const uint32_t counter = restoration->journal->state.security_counter;
    say("restoration: %s%s\n", restoration->reason, restoration->detail);
    say("restoration: serial=%s hardware=%s counter=%u\n", restoration->id->serial,
        restoration->id->hardware_id, (unsigned)counter);
    say("restoration: send the signed image by YMODEM\n");
    for (;;) {
        receive(&ymodem);
        await_silence();
        if (ymodem.status != YMODEM_DONE) {
            say("restoration: refused, %s\n", ymodem_status_text(ymodem.status));
            continue;
        }
        struct image image;
        const char *problem = check(restoration, ymodem.received, &image);
        if (problem) {
            say("restoration: refused, %s\n", problem);
            continue;
        }
        const int error = announce_rewrite(restoration->journal, &image);
        if (error) {
            say("restoration: refused, the journal cannot be written: %s\n",
                recordlog_error_text(error));
            continue;
        }
        char version[IMAGE_VERSION_TEXT_SIZE];
        image_version_text(&image.version, version);
        say("restoration: accepted %s\n", version);
        uart_flush(UART_WIRE);
        AGENT->rewrite(&(struct rewrite_job){
            .image = pool,
            .length = image.total,
            .offset = BOARD_APPLICATION_OFFSET,
        });
    }
}
