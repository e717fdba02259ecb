/* Chooses copies among new bytes (format version 2), so that a file gets small. */
#pragma once

#include "codec.h"

#pragma GCC visibility push(default)

/* Sets `*copies` to a list that parse_free frees, and returns how many they are; or what is wrong
 * (`enum delta_error`). Copies that the plan has are of no interest. */
int64_t parse_copies(const struct codec_plan *plan, struct codec_copy **copies);
void parse_free(struct codec_copy *copies);

#pragma GCC visibility pop
