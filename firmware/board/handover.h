/* What boot hands over to the program that it starts, application or resident program: behind the
 * pool's use, just below the agent. It is read before anything else uses the pool. */
#pragma once

#include <stdint.h>

#include "board_map.h"

#define HANDOVER_MAGIC 0x52444e48u /* "HNDR" */

struct handover {
    uint32_t magic; /* HANDOVER_MAGIC: a boot from before there was a start counter writes none */
    uint32_t start; /* the count of this start; 0: it could not be counted (lib/starts.h) */
};

/* Below what the resident program is handed over besides (resident/resident.h). */
#define HANDOVER ((struct handover *)(BOARD_AGENT_BASE - 0x100u))
