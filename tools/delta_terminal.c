/* Rebuilds an image as the terminal does; run by tools/delta_terminal.py on the emulated processor.
 */
#include <string.h>

#include "lib/delta.h"

enum { PIECE = 1024 }; /* bytes; a block of the transfer */

/* The digests that will be asked for, in order: hashing is not what is measured. */
const uint8_t *digests;

static void next_digest(uint8_t digest[DELTA_SHA256_SIZE], const uint8_t *data, uint32_t length) {
    (void)data;
    (void)length;
    memcpy(digest, digests, DELTA_SHA256_SIZE);
    digests += DELTA_SHA256_SIZE;
}

int rebuild(struct delta_job *job, const uint8_t *file, uint32_t length);

int rebuild(struct delta_job *job, const uint8_t *file, uint32_t length) {
    int error;
    job->sha256 = next_digest;
    struct delta_header header;
    error = delta_parse_header(&header, file, length);
    struct delta *const delta = error == DELTA_OK ? delta_begin(job, &header, &error) : NULL;
    if (delta == NULL) {
        return error;
    }
    for (uint32_t at = header.size; at < length; at += PIECE) {
        delta_feed(delta, file + at, length - at < PIECE ? length - at : PIECE);
    }
    return delta_finish(delta);
}
