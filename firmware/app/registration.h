/* What the terminal tells the server about itself. */
#pragma once

#include "link/maps.h"

/* What this terminal is and runs. */
void registration_describe(struct registration *registration);

/* Registers again at the next poll: what the registration says has changed. */
void registration_send_soon(void);
