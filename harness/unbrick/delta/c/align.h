/* Finds the parts of a new image that correspond to parts of the old one. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "codec.h"

#pragma GCC visibility push(default)

/* Two images, of one instruction set (of `lib/delta_code.h`), that run at one address. */
struct align_images {
    const uint8_t *old;
    uint32_t old_length; /* not 0, nor is the other */
    const uint8_t *new;
    uint32_t new_length;
    uint32_t isa;
    uint32_t base;
};

struct align_segments {
    struct codec_segment *of; /* in the order of the new image */
    size_t count;
    size_t room;
};

/* Chooses segments so that the file is small. Returns NULL without memory. */
struct align_segments *align_images(const struct align_images *images);
void align_free(struct align_segments *segments);

#pragma GCC visibility pop
