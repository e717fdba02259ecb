/* The user's calls to the customer center over the wireless link (row B4; docs/protocol.md): keys
 * go there, what is said there is shown. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/coap.h"
#include "link/radio.h"

/* Of the requests; those before it belong to app/update.h. */
#define CALL_FIRST_TAG (RADIO_TAG_OWNER + 16u)

/* Begins a call. False: one is on. */
bool call_start(void);

/* Ends it. False: there is none. */
bool call_hang_up(void);

/* Whether a call is on and `line` is nothing but keys (0-9, *, #, blanks): then they are pressed.
 */
bool call_press(const char *line);

/* Sends what is due. `now` in microseconds. */
void call_poll(uint64_t now);

/* For routes.c: POST /say, and the end of requests with tags from CALL_FIRST_TAG on. */
void call_answer_say(const struct coap_message *request, struct coap_builder *reply);
void call_take_response(uint32_t tag, enum coap_outcome outcome,
                        const struct coap_message *response);
