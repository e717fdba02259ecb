/* The wireless link, for resident program and application: CoAP over slipmux on UART1, the
 * registration with the server, and what the server may ask for. There is one, and one owner of it.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "lib/coap.h"
#include "link/maps.h"

/* Tags of requests; those from RADIO_TAG_OWNER on are the owner's. */
#define RADIO_TAG_REGISTER 0u
#define RADIO_TAG_OWNER 1u

enum radio_contact {
    RADIO_NOT_YET,
    RADIO_REGISTERED,
    RADIO_REFUSED,
    RADIO_NO_ANSWER,
    RADIO_USED_UP, /* this start has no number for any message: nothing is sent */
};

struct radio_resource {
    const char *path;
    uint8_t method;
    void (*answer)(const struct coap_message *request, struct coap_builder *reply);
};

struct radio_owner {
    const struct radio_resource *resources;
    size_t resource_count;
    uint32_t register_again_us; /* after a registration that the server took */
    void (*describe)(struct registration *registration);
    /* The contact with the server has changed; `code` is its answer when it refuses. */
    void (*contact)(enum radio_contact contact, uint8_t code);
    /* A request of the owner has ended (coap_callbacks.response). */
    void (*response)(uint32_t tag, enum coap_outcome outcome, const struct coap_message *response);
};

/* Makes the keys that protect all messages from now on (lib/oscore.h). A terminal without a key of
 * its own goes without. Call it before the pool is used: boot hands over the start's count there.
 */
void radio_protect(const char *serial);

/* Begins; the first registration is sent by the first radio_poll. `seed` should not be that of the
 * last start, or the server takes a new request for a repetition. */
void radio_start(const struct radio_owner *owner, uint32_t seed);

/* What differs from start to start, for the seed: there is no source of randomness on the board.
 * `count` is of anything that grows. */
uint32_t radio_seed(const char *serial, uint32_t count);

/* Receives what has arrived and sends what is due. `now` in microseconds. */
void radio_poll(uint64_t now);

/* Registers again at the time `at`: what the registration says has changed. */
void radio_register(uint64_t at);

enum radio_contact radio_contact(void);

/* When the server was last heard, in microseconds; 0: never. What anybody may have sent does not
 * count. */
uint64_t radio_heard(void);

/* For requests of the owner: coap_request_begin, options, coap_request_send. */
struct coap_endpoint *radio_endpoint(void);
