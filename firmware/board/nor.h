/* The NOR for the portable code of lib/, by way of the agent. */
#pragma once

#include "lib/flash.h"

/* Loads the agent, has it ask the chips for their geometry, and fills `flash`. The UARTs must have
 * been set up: their rings take what arrives while the agent works. Returns an agent_status. */
int nor_init(struct flash *flash);

/* The same with the agent that is loaded already. */
int nor_attach(struct flash *flash);
