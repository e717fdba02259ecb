/* Text messages: the last few, kept in SRAM. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define MESSAGES_KEPT 8u
#define MESSAGE_MAX 160u /* bytes of UTF-8 */

/* Keeps a message (1 to MESSAGE_MAX bytes of valid UTF-8) and shows it. Control characters become
   blanks: they would be commands to the user's terminal program. */
void messages_receive(const uint8_t *text, size_t length);

/* The message number `index`, oldest first; NULL after the last. */
const char *messages_get(size_t index);
