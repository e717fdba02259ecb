#include "link.h"

#include <string.h>

#include "board/timer.h"
#include "board/uart.h"
#include "console.h"
#include "identity.h"
#include "lib/bug.h"
#include "lib/cbor.h"
#include "lib/crc.h"
#include "lib/slipmux.h"
#include "messages.h"
#include "storage.h"
#include "update.h"

#define SECOND_US 1000000u
#define REGISTER_AGAIN_US (60u * SECOND_US)
#define FIRST_BACKOFF_US SECOND_US
/* So that a peer that never stops sending cannot keep the rest from running. */
#define MAX_BYTES_PER_POLL 2048u

enum contact { CONTACT_NONE_YET, CONTACT_REGISTERED, CONTACT_LOST };

static struct {
    struct coap_endpoint endpoint;
    struct slipmux_receiver receiver;
    uint8_t frame[SLIPMUX_MAX_FRAME];
    enum contact contact; /* what was last said about it */
    bool registering;     /* a registration is under way */
    bool again;           /* and says something that has changed since */
    uint64_t register_at;
    uint32_t backoff;
} link;

/* ---- Requests of the server ---- */

static bool is_cbor(const struct coap_message *request) {
    int32_t format = coap_content_format(request);
    return format == COAP_FORMAT_CBOR || format == -1;
}

static void answer_message(const struct coap_message *request, struct coap_builder *reply) {
    struct cbor_field text = {
        .key = 1, .kind = CBOR_TEXT, .required = true, .minimum = 1, .maximum = MESSAGE_MAX};
    if (cbor_decode_map(request->payload, request->payload_length, &text, 1) != CBOR_OK) {
        coap_build_code(reply, COAP_BAD_REQUEST);
        return;
    }
    messages_receive(text.data, text.length);
    coap_build_code(reply, COAP_CHANGED);
}

static const struct {
    const char *path;
    uint8_t method;
    void (*answer)(const struct coap_message *request, struct coap_builder *reply);
} resources[] = {
    {"announce", COAP_POST, update_answer_announcement},
    {"message", COAP_POST, answer_message},
    {"status", COAP_GET, update_answer_status},
};

static void on_request(void *ctx, const struct coap_message *request, struct coap_builder *reply) {
    (void)ctx;
    for (size_t i = 0; i < sizeof resources / sizeof resources[0]; i++) {
        if (!coap_path_is(request, resources[i].path)) {
            continue;
        }
        if (request->code != resources[i].method) {
            coap_build_code(reply, COAP_METHOD_NOT_ALLOWED);
        } else if (!is_cbor(request)) {
            coap_build_code(reply, COAP_UNSUPPORTED_FORMAT);
        } else {
            resources[i].answer(request, reply);
        }
        return;
    }
    coap_build_code(reply, COAP_NOT_FOUND);
}

/* ---- Registration ---- */

static void begin_registration(uint64_t now) {
    struct coap_builder builder;
    if (!coap_request_begin(&link.endpoint, &builder, COAP_POST)) {
        return; /* all exchanges are under way: at the next poll */
    }
    const struct identity *me = identity();
    struct update_summary summary = update_summary();
    uint8_t payload[320];
    struct cbor_encoder map;
    cbor_encoder_init(&map, payload, sizeof payload);
    cbor_put_map(&map, 10);
    cbor_pair_text(&map, 1, me->terminal.serial);
    cbor_pair_text(&map, 2, me->terminal.hardware_id);
    cbor_pair_text(&map, 3, me->name);
    cbor_pair_text(&map, 4, me->full_version);
    cbor_pair_text(&map, 5, me->build_time);
    if (BUG(TARGET_REGISTERED) && storage_journal()->state.update_id != 0) {
        cbor_pair_bytes(&map, 6, storage_journal()->state.target_digest, sizeof me->digest);
    } else {
        cbor_pair_bytes(&map, 6, me->digest, sizeof me->digest);
    }
    cbor_pair_uint(&map, 7, 0);
    cbor_pair_uint(&map, 8, summary.last_id);
    cbor_pair_uint(&map, 9, (uint64_t)summary.last_result);
    cbor_pair_uint(&map, 10, summary.security_counter);

    coap_build_path(&builder, "register");
    coap_build_cbor(&builder, payload, cbor_encoder_finish(&map));
    if (coap_request_send(&link.endpoint, &builder, LINK_TAG_REGISTER, now)) {
        link.registering = true;
        link.again = false;
    }
}

static void end_registration(enum coap_outcome outcome, const struct coap_message *response) {
    uint64_t now = timer_now();
    link.registering = false;
    if (outcome == COAP_RESPONSE && COAP_CODE_CLASS(response->code) == 2) {
        if (link.contact != CONTACT_REGISTERED) {
            link.contact = CONTACT_REGISTERED;
            console_say("link: registered");
        }
        link.backoff = FIRST_BACKOFF_US;
        link.register_at = link.again ? now : now + REGISTER_AGAIN_US;
        return;
    }
    if (link.contact != CONTACT_LOST) {
        link.contact = CONTACT_LOST;
        if (outcome == COAP_RESPONSE) {
            console_say("link: the server refuses to register this terminal, code %d.%02d",
                        COAP_CODE_CLASS(response->code), COAP_CODE_DETAIL(response->code));
        } else {
            console_say("link: the server does not answer");
        }
    }
    link.register_at = now + link.backoff;
    link.backoff = link.backoff > REGISTER_AGAIN_US / 2 ? REGISTER_AGAIN_US : link.backoff * 2;
}

void link_register_soon(void) {
    link.again = true;
    link.register_at = 0;
}

/* ---- The endpoint and its frames ---- */

static void on_response(void *ctx, uint32_t tag, enum coap_outcome outcome,
                        const struct coap_message *response) {
    (void)ctx;
    if (tag == LINK_TAG_REGISTER) {
        end_registration(outcome, response);
    } else {
        update_take_response(tag, outcome, response);
    }
}

static void emit(void *ctx, uint8_t byte) {
    (void)ctx;
    uart_put(UART_RADIO, byte);
}

static void transmit(void *ctx, const uint8_t *message, size_t length) {
    (void)ctx;
    slipmux_send(SLIPMUX_COAP, message, length, emit, NULL);
}

static const struct coap_callbacks callbacks = {
    .transmit = transmit, .response = on_response, .request = on_request};

/* Message IDs should not be those of the last start, or the server takes a new request for a
   repetition. There is no source of randomness on the board: take what differs most often. */
static uint32_t seed(void) {
    const struct journal *journal = storage_journal();
    uint64_t now = timer_now();
    uint32_t counter = *(const volatile uint32_t *)BOARD_SYS_24MHZ;
    uint32_t sum = crc32(0, identity()->terminal.serial, strlen(identity()->terminal.serial));
    sum = crc32(sum, &journal->log.next, sizeof journal->log.next);
    sum = crc32(sum, &counter, sizeof counter);
    return crc32(sum, &now, sizeof now);
}

void link_start(void) {
    coap_endpoint_init(&link.endpoint, &callbacks, seed());
    slipmux_init(&link.receiver, link.frame, sizeof link.frame);
    link.backoff = FIRST_BACKOFF_US;
}

void link_poll(uint64_t now) {
    struct uart_ring *ring = uart_ring(UART_RADIO);
    for (uint32_t i = 0; i < MAX_BYTES_PER_POLL; i++) {
        int byte = uart_get(UART_RADIO);
        if (byte < 0) {
            break;
        }
        /* The file of an update is to be in the staging area and nowhere else, not here either. */
        ring->data[(ring->tail - 1) & ring->mask] = 0;
        struct slipmux_frame frame;
        if (slipmux_feed(&link.receiver, (uint8_t)byte, &frame) && frame.type == SLIPMUX_COAP) {
            coap_endpoint_receive(&link.endpoint, frame.data, frame.length, now);
        }
    }
    if (!link.registering && now >= link.register_at) {
        begin_registration(now);
    }
    (void)coap_endpoint_poll(&link.endpoint, now);
}

struct coap_endpoint *link_endpoint(void) {
    return &link.endpoint;
}
