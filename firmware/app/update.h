/* The update over the wireless link: announcement, transfer state, transfer, checks, rewrite. */
#pragma once

#include <stdint.h>

#include "lib/coap.h"
#include "lib/result.h"
#include "link/maps.h"

struct update_summary {
    enum update_phase phase;
    uint32_t last_id;          /* of the last update that ended, 0: none */
    enum result last_result;   /* how it ended */
    uint32_t security_counter; /* that this terminal holds */
};

/* Takes up what the journal says. In a trial: confirms the new software, which must have checked
   itself before. Needs storage and link. */
void update_start(void);

/* Does what is due. `now` in microseconds. Does not return when the rewrite begins. */
void update_poll(uint64_t now);

struct update_summary update_summary(void);

/* For link.c: the server's requests, and the end of requests with tags from LINK_TAG_UPDATE on. */
void update_answer_announcement(const struct coap_message *request, struct coap_builder *reply);
void update_answer_status(const struct coap_message *request, struct coap_builder *reply);
void update_take_response(uint32_t tag, enum coap_outcome outcome,
                          const struct coap_message *response);
