/* The application's side of the wireless link: what it registers and what the server may ask for.
 */
#pragma once

#include "link/radio.h"
#include <stdint.h>

/* Tags of requests from here on belong to update.c. */
#define LINK_TAG_UPDATE RADIO_TAG_OWNER

/* Begins; the first registration is sent by the first radio_poll. */
void link_start(void);

/* What this terminal is and runs. */
void link_describe(struct registration *registration);

/* Registers again at the next poll: what the registration says has changed. */
void link_register_soon(void);
