/* Differential files (docs/delta-format.md): rebuilds a new image from the installed one and a file
 * that is passed in as it arrives, in pieces of any length. No allocation, no globals, never a read
 * or write outside what the job names; the file is hostile until the new image's digest was right.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DELTA_MIN_HEADER_SIZE 17u  /* bytes at the start of a file, at least */
#define DELTA_MAX_HEADER_SIZE 44u  /* and at most */
#define DELTA_BASE_DIGEST_SIZE 16u /* at most */
#define DELTA_DIGEST_SIZE 8u       /* at most */
#define DELTA_SHA256_SIZE 32u
#define DELTA_MAX_MEMORY 16384u /* bytes of working memory that a file may ask for */

enum delta_error {
    DELTA_OK = 0,
    DELTA_TRUNCATED = -90,    /* the file ends before the new image is complete */
    DELTA_BAD_MAGIC = -91,    /* not a differential file, or one of another format version */
    DELTA_BAD_HEADER = -92,   /* a field outside its bounds */
    DELTA_WRONG_BASE = -93,   /* made against another image than the installed one */
    DELTA_NO_MEMORY = -94,    /* working memory or room for the new image is too small */
    DELTA_MALFORMED = -95,    /* the file contradicts itself */
    DELTA_TRAILING = -96,     /* bytes after its end */
    DELTA_WRONG_DIGEST = -97, /* what was rebuilt is not the image that the header names */
};

/* What a file says about itself. */
struct delta_header {
    uint32_t base_length; /* bytes of the installed image that the file was made against */
    uint32_t length;      /* bytes of the new image */
    uint32_t memory;      /* bytes of working memory that rebuilding needs, struct delta included */
    uint32_t size;        /* bytes of the header itself */
    uint8_t base_digest[DELTA_BASE_DIGEST_SIZE]; /* SHA-256 of the installed image, its beginning */
    uint8_t digest[DELTA_DIGEST_SIZE];           /* SHA-256 of the new image, its beginning */
    uint8_t base_digest_size;                    /* bytes of them that count */
    uint8_t digest_size;
    /* For the decoder. */
    uint8_t version; /* of the format: 1 or 2 */
    uint8_t isa;
    uint8_t slots;   /* log2 of their number */
    uint8_t repeats; /* log2 of their number */
    uint16_t segments;
    uint32_t base_address;
    uint32_t window;
    uint32_t window_size;
};

/* Reads and checks the header of a file that begins with `length` bytes of `data`. Returns an enum
 * delta_error: DELTA_TRUNCATED when they are too few. */
int delta_parse_header(struct delta_header *header, const uint8_t *data, size_t length);

/* What the decoder works on. The areas must not overlap. */
struct delta_job {
    const uint8_t *base; /* the installed image, with header and TLVs */
    uint32_t base_size;  /* bytes that may be read there; a file that needs more is refused */
    uint8_t *image;      /* where the new image is rebuilt */
    uint32_t image_size; /* bytes that may be written there */
    void *memory;        /* working memory, at a multiple of 8 */
    uint32_t memory_size;
    void (*sha256)(uint8_t digest[DELTA_SHA256_SIZE], const uint8_t *data, uint32_t length);
    void (*progress)(void); /* called every few dozen instructions of the image (drain the UARTs);
                               may be NULL */
};

struct delta; /* lies at the start of the working memory */

/* Begins with a header that was parsed: refuses it, or returns the decoder. `*error` says why not.
 * The base is refused, by length and SHA-256, before anything is written to `image`. */
struct delta *delta_begin(const struct delta_job *job, const struct delta_header *header,
                          int *error);

/* Takes the next bytes of the file, those after the header, in order. Decodes as far as they reach.
 * Returns DELTA_OK, or why the file is refused; then the image is of no use and every later call
 * returns the same. */
int delta_feed(struct delta *delta, const uint8_t *data, size_t length);

/* The file has ended. DELTA_OK only when the image is complete and its SHA-256 is what the header
 * says. */
int delta_finish(struct delta *delta);

/* Bytes of the new image that are there already, from its start on. */
uint32_t delta_rebuilt(const struct delta *delta);

/* One line for a person, such as "made against another image". */
const char *delta_error_text(int error);
