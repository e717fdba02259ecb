/* What this terminal is and what it runs, both from the NOR. */
#pragma once

#include <stdint.h>

#include "lib/image.h"

#define IDENTITY_TEXT_SIZE 32u

struct identity {
    char serial[IDENTITY_TEXT_SIZE];
    char hardware_id[IDENTITY_TEXT_SIZE];
    char name[IDENTITY_TEXT_SIZE];
    char build_time[IDENTITY_TEXT_SIZE];
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
