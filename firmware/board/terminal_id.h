/* Who this terminal is: the identity partition (docs/protocol.md). */
#pragma once

#include <stdbool.h>

#define TERMINAL_ID_TEXT_SIZE 32u

struct terminal_id {
    char serial[TERMINAL_ID_TEXT_SIZE];
    char hardware_id[TERMINAL_ID_TEXT_SIZE];
};

/* False when there is no valid identity: then the serial is "unknown" and the hardware id that of
 * the board this was built for. */
bool terminal_id_read(struct terminal_id *id);
