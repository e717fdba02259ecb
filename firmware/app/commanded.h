/* The start of a commanded update: from here on the resident program does what the server says. */
#pragma once

#include "lib/coap.h"

/* For routes.c: the server's request. */
void commanded_answer_upgrade(const struct coap_message *request, struct coap_builder *reply);

/* Starts boot again, once an upgrade was accepted and its answer has left. */
void commanded_poll(void);
