/* The wireless link: CoAP over slipmux on UART1, registration, and what the server may ask for. */
#pragma once

#include <stdint.h>

#include "lib/coap.h"

/* Tags of requests; those from LINK_TAG_UPDATE on belong to update.c. */
#define LINK_TAG_REGISTER 0u
#define LINK_TAG_UPDATE 1u

/* Begins; the first registration is sent by the first link_poll. */
void link_start(void);

/* Receives what has arrived and sends what is due. `now` in microseconds. */
void link_poll(uint64_t now);

/* Registers again at the next poll: what the registration says has changed. */
void link_register_soon(void);

/* For requests of other modules: coap_request_begin, options, coap_request_send. */
struct coap_endpoint *link_endpoint(void);
