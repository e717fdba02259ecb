/* The restoration state: a new application comes over the wire by YMODEM or over the wireless link,
 * whichever is whole first. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "resident/terminal.h"

struct restoration {
    const char *reason; /* why, for a person: two parts of one sentence */
    const char *detail;
    struct terminal *terminal;
};

/* Ends only by a rewrite, after which boot starts again. */
_Noreturn void restoration(const struct restoration *restoration);

/* Says why there is nothing to start, and listens on the wire from now on. */
void restoration_open_wire(const struct restoration *restoration);

/* Serves the link, and the wire if that is open. Returns until when nothing is to be done, unless
 * something arrives. */
uint64_t restoration_serve(struct terminal *terminal);

/* Whether something is on its way over the wire: then nothing may be said there. */
bool restoration_is_receiving(void);
