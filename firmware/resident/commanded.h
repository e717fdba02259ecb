/* A commanded update: the server says what to erase and to write, address by address, and hears
 * what came of it (docs/protocol.md). */
#pragma once

#include "resident/terminal.h"

/* Ends by a rewrite, or by starting boot again when the journal says what comes next. */
_Noreturn void commanded(struct terminal *terminal);
