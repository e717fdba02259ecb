/* The application's side of the wireless link: what it registers and what the server may ask for.
 */
#pragma once

#include <stdint.h>

#include "link/radio.h"

/* Tags of requests: from the first on they belong to update.c, from the second to call.c. */
#define LINK_TAG_UPDATE RADIO_TAG_OWNER
#define LINK_TAG_CALL (RADIO_TAG_OWNER + 16u)

/* Begins; the first registration is sent by the first radio_poll. */
void link_start(void);

/* What this terminal is and runs. */
void link_describe(struct registration *registration);

/* Registers again at the next poll: what the registration says has changed. */
void link_register_soon(void);
