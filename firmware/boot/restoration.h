/* The restoration state: a new application comes over the wire by YMODEM or over the wireless link,
 * whichever is whole first. */
#pragma once

#include "board/terminal_id.h"
#include "lib/image.h"
#include "lib/journal.h"

struct restoration {
    const char *reason; /* why, for a person: two parts of one sentence */
    const char *detail;
    const struct terminal_id *id;
    const struct image *installed; /* what is in the NOR, when that is valid, else NULL */
    struct journal *journal;
};

/* Ends only by a rewrite, after which boot starts again. */
_Noreturn void restoration(const struct restoration *restoration);
