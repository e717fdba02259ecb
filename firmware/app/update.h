/* The update over the wireless link: announcement, transfer state, transfer, checks, rewrite. */
#pragma once

#include <stdint.h>

#include "lib/coap.h"
#include "link/radio.h"

/* Of the requests; there is room for the report and for the window of a transfer. */
#define UPDATE_FIRST_TAG RADIO_TAG_OWNER

/* Takes up what the journal says. In a trial: confirms the new software, which must have checked
   itself before. Needs storage and link. */
void update_start(void);

/* Does what is due. `now` in microseconds. Does not return when the rewrite begins. */
void update_poll(uint64_t now);

/* For routes.c: the server's requests, and the end of requests with tags from UPDATE_FIRST_TAG on.
 */
void update_answer_announcement(const struct coap_message *request, struct coap_builder *reply);
void update_answer_status(const struct coap_message *request, struct coap_builder *reply);
void update_take_response(uint32_t tag, enum coap_outcome outcome,
                          const struct coap_message *response);
