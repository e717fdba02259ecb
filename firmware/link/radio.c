#include "link/radio.h"

#include <string.h>

#include "board/handover.h"
#include "board/protect.h"
#include "board/system.h"
#include "board/terminal_id.h"
#include "board/timer.h"
#include "board/uart.h"
#include "board_map.h"
#include "lib/crc.h"
#include "lib/print.h"
#include "lib/slipmux.h"

#define SECOND_US 1000000u
#define FIRST_BACKOFF_US SECOND_US
#define LONGEST_BACKOFF_US (60u * SECOND_US)
/* So that a peer that never stops sending cannot keep the rest from running. */
#define MAX_BYTES_PER_POLL 2048u

static struct {
    const struct radio_owner *owner;
    struct coap_endpoint endpoint;
    struct oscore_context security;
    bool protected;
    struct slipmux_receiver receiver;
    uint8_t frame[SLIPMUX_MAX_FRAME];
    enum radio_contact contact;
    bool registering; /* a registration is under way */
    bool again;       /* and says something that has changed since */
    uint64_t register_at;
    uint32_t backoff;
    uint64_t heard;
} radio;

/* ---- Requests of the server ---- */

static bool is_cbor(const struct coap_message *request) {
    const int32_t format = coap_content_format(request);
    return format == COAP_FORMAT_CBOR || format == -1;
}

/* The resources as links (RFC 6690). A query is not used as a filter, as §4.1 allows. */
static void answer_discovery(const struct coap_message *request, struct coap_builder *reply) {
    if (request->code != COAP_GET) {
        coap_build_code(reply, COAP_METHOD_NOT_ALLOWED);
        return;
    }
    coap_build_code(reply, COAP_CONTENT);
    coap_build_option_uint(reply, COAP_OPTION_CONTENT_FORMAT, COAP_FORMAT_LINKS);
    size_t room;
    char *links = (char *)coap_build_payload_room(reply, &room);
    size_t used = 0;
    for (size_t i = 0; i < radio.owner->resource_count; i++) {
        used += print_text(links + used, room - used, "%s</%s>;ct=%u", i > 0 ? "," : "",
                           radio.owner->resources[i].path, (unsigned)COAP_FORMAT_CBOR);
    }
    coap_build_payload_used(reply, used);
}

static void on_request(void *ctx, const struct coap_message *request, struct coap_builder *reply) {
    (void)ctx;
    radio.heard = timer_now();
    if (coap_path_is(request, COAP_DISCOVERY)) {
        answer_discovery(request, reply);
        return;
    }
    for (size_t i = 0; i < radio.owner->resource_count; i++) {
        const struct radio_resource *resource = &radio.owner->resources[i];
        if (!coap_path_is(request, resource->path)) {
            continue;
        }
        if (request->code != resource->method) {
            coap_build_code(reply, COAP_METHOD_NOT_ALLOWED);
        } else if (!is_cbor(request)) {
            coap_build_code(reply, COAP_UNSUPPORTED_FORMAT);
        } else {
            resource->answer(request, reply);
        }
        return;
    }
    coap_build_code(reply, COAP_NOT_FOUND);
}

/* ---- Registration ---- */

static void begin_registration(uint64_t now) {
    struct coap_builder builder;
    if (!coap_request_begin(&radio.endpoint, &builder, COAP_POST)) {
        return; /* all exchanges are under way: at the next poll */
    }
    struct registration registration = {0};
    radio.owner->describe(&registration);
    coap_build_path(&builder, "register");
    maps_put_registration(&builder, &registration);
    if (coap_request_send(&radio.endpoint, &builder, RADIO_TAG_REGISTER, now)) {
        radio.registering = true;
        radio.again = false;
    }
}

static void end_registration(enum coap_outcome outcome, const struct coap_message *response) {
    const uint64_t now = timer_now();
    const bool answered = outcome == COAP_RESPONSE || outcome == COAP_UNPROTECTED;
    enum radio_contact contact = answered ? RADIO_REFUSED : RADIO_NO_ANSWER;
    radio.registering = false;
    if (outcome == COAP_RESPONSE && COAP_CODE_CLASS(response->code) == 2) {
        contact = RADIO_REGISTERED;
        radio.backoff = FIRST_BACKOFF_US;
        if (!radio.again) {
            radio.register_at = now + radio.owner->register_again_us;
        }
    } else {
        radio.register_at = now + radio.backoff;
        radio.backoff =
            radio.backoff > LONGEST_BACKOFF_US / 2 ? LONGEST_BACKOFF_US : radio.backoff * 2;
    }
    /* Of two ways of not being registered, only the first is worth a word. */
    const bool lost = contact != RADIO_REGISTERED && radio.contact > RADIO_REGISTERED;
    if (contact != radio.contact && !lost) {
        radio.contact = contact;
        radio.owner->contact(contact, answered ? response->code : 0);
    }
}

void radio_register(uint64_t at) {
    radio.again = true;
    radio.register_at = at;
}

/* ---- Protection ---- */

void radio_protect(const char *serial) {
    static const char purpose[] = "unbrick link";
    const uint8_t *const key = terminal_id_key();
    uint8_t secret[OSCORE_MAC];
    radio.protected = key != NULL && HANDOVER->magic == HANDOVER_MAGIC;
    if (radio.protected) {
        protect_crypto.hmac(key, TERMINAL_KEY_SIZE, (const uint8_t *)purpose, sizeof purpose - 1,
                            secret);
        oscore_init(&radio.security, &protect_crypto, secret, serial, HANDOVER->start);
        protect_wipe(secret, sizeof secret);
    }
}

static bool is_used_up(void) {
    return radio.protected && radio.security.next >= radio.security.end;
}

/* Without a number nothing can be sent. The next start has others, if this one had any. */
static void when_used_up(void) {
    if (radio.security.end > 0 && coap_requests_pending(&radio.endpoint) == 0) {
        system_restart();
    }
    if (radio.contact != RADIO_USED_UP) {
        radio.contact = RADIO_USED_UP;
        radio.owner->contact(RADIO_USED_UP, 0);
    }
}

/* ---- The endpoint and its frames ---- */

static void on_response(void *ctx, uint32_t tag, enum coap_outcome outcome,
                        const struct coap_message *response) {
    (void)ctx;
    if (outcome == COAP_RESPONSE) {
        radio.heard = timer_now();
    }
    if (tag == RADIO_TAG_REGISTER) {
        end_registration(outcome, response);
    } else {
        radio.owner->response(tag, outcome, response);
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

uint32_t radio_seed(const char *serial, uint32_t count) {
    const uint64_t now = timer_now();
    const uint32_t counter = *(const volatile uint32_t *)BOARD_SYS_24MHZ;
    uint32_t sum = crc32(0, serial, strlen(serial));
    sum = crc32(sum, &count, sizeof count);
    sum = crc32(sum, &counter, sizeof counter);
    return crc32(sum, &now, sizeof now);
}

void radio_start(const struct radio_owner *owner, uint32_t seed) {
    radio.owner = owner;
    coap_endpoint_init(&radio.endpoint, &callbacks, radio.protected ? &radio.security : NULL, seed);
    slipmux_init(&radio.receiver, radio.frame, sizeof radio.frame);
    radio.backoff = FIRST_BACKOFF_US;
}

void radio_poll(uint64_t now) {
    struct uart_ring *ring = uart_ring(UART_RADIO);
    for (uint32_t i = 0; i < MAX_BYTES_PER_POLL; i++) {
        const int byte = uart_get(UART_RADIO);
        if (byte < 0) {
            break;
        }
        /* The file of an update is to be in the staging area and nowhere else, not here either. */
        ring->data[(ring->tail - 1) & ring->mask] = 0;
        struct slipmux_frame frame;
        if (slipmux_feed(&radio.receiver, (uint8_t)byte, &frame) && frame.type == SLIPMUX_COAP) {
            coap_endpoint_receive(&radio.endpoint, frame.data, frame.length, now);
        }
    }
    if (is_used_up()) {
        when_used_up();
    } else if (!radio.registering && now >= radio.register_at) {
        begin_registration(now);
    }
    (void)coap_endpoint_poll(&radio.endpoint, now);
}

enum radio_contact radio_contact(void) {
    return radio.contact;
}

uint64_t radio_heard(void) {
    return radio.heard;
}

struct coap_endpoint *radio_endpoint(void) {
    return &radio.endpoint;
}
