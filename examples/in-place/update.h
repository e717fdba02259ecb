/* Applies a differential file in place: there is no second slot for a whole image. */
#pragma once

#include <stdbool.h>

/* Ends an update that a power cut has left, and begins the one that is staged. Whether the
 * application is whole: false when the flash does not take what it must. */
bool update_apply(void);
