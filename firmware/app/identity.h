/* What this terminal is and what it runs, both from the NOR. */
#pragma once

#include <stdint.h>

#include "board/terminal_id.h"
#include "lib/image.h"

struct identity {
    struct terminal_id terminal;
    char name[IMAGE_MAX_TEXT + 1];
    char build_time[IMAGE_MAX_TEXT + 1];
    char full_version[IMAGE_VERSION_TEXT_SIZE]; /* "1.1.0+0", as the protocol has it */
    char version[IMAGE_VERSION_TEXT_SIZE];      /* "1.1.0", for people */
    uint8_t digest[IMAGE_DIGEST_SIZE];
    uint32_t security_counter; /* of the image; the journal's may not be larger */
};

/* Reads identity partition and application image. Returns NULL, or what is wrong (the software's
   part is then empty, or the serial is "unknown"). Call it once, first of all. */
const char *identity_read(void);

const struct identity *identity(void);

/* A version without the build number 0 that says nothing: "1.1.0+0" becomes "1.1.0" in place. */
void identity_shorten_version(char *version);
