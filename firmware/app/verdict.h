/* How the update over the wireless link stands, how the last one ended, and which software is too
 * old for this terminal. */
#pragma once

#include <stdint.h>

#include "lib/result.h"
#include "link/maps.h"

struct update_summary {
    enum update_phase phase;
    uint32_t last_id;          /* of the last update that ended, 0: none */
    enum result last_result;   /* how it ended */
    uint32_t security_counter; /* that this terminal holds */
};

/* Of what runs and of what the journal remembers, the larger: nothing below it is installed. */
uint32_t verdict_security_counter(void);

enum update_phase verdict_phase(void);
struct update_summary verdict_summary(void);

/* For update.c: an update enters a phase, or has ended. */
void verdict_enter(enum update_phase phase);
void verdict_end(uint32_t id, enum result result);
