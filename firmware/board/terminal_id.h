/* Who this terminal is: the identity partition (docs/protocol.md). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define TERMINAL_ID_TEXT_SIZE 32u
#define TERMINAL_KEY_SIZE 32u

struct terminal_id {
    char serial[TERMINAL_ID_TEXT_SIZE];
    char hardware_id[TERMINAL_ID_TEXT_SIZE];
};

/* The terminal's own key, TERMINAL_KEY_SIZE bytes in the NOR: it is never copied. NULL when there
 * is no valid identity, or one from before there were keys. */
const uint8_t *terminal_id_key(void);

/* False when there is no valid identity: then the serial is "unknown" and the hardware id that of
 * the board this was built for. */
bool terminal_id_read(struct terminal_id *id);
