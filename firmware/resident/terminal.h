/* The terminal that the resident program runs on. All of it is in the SRAM: it is needed while the
 * NOR cannot be read. */
#pragma once

#include <stdint.h>

#include "board/terminal_id.h"
#include "lib/flash.h"
#include "lib/image.h"
#include "lib/journal.h"

/* What is in the application's partition, while that is valid; else empty texts and zeros. */
struct installed {
    char name[IMAGE_MAX_TEXT + 1];
    char version[IMAGE_VERSION_TEXT_SIZE];
    char build_time[IMAGE_MAX_TEXT + 1];
    uint8_t digest[IMAGE_DIGEST_SIZE];
};

struct terminal {
    struct terminal_id id;
    struct flash flash;
    struct journal journal;
    struct installed installed;
};
