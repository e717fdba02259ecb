/* As much of <stdlib.h> as libsodium uses. */
#pragma once

#include <stddef.h>

_Noreturn void abort(void);
