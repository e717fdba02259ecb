/* Differential files (docs/delta-format.md) in both directions, from the same sources as the
 * terminal's decoder: `firmware/lib/delta*.c`. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(default)

typedef void codec_sha256(uint8_t digest[32], const uint8_t *data, uint32_t length);

/* `length` bytes at `new` in the new image, which were those at `old` in the old one. */
struct codec_segment {
    uint32_t new;
    uint32_t length;
    uint32_t old;
};

/* `length` bytes among the new ones at `new`, which came before: at `from` in an image. Places and
 * lengths are multiples of the instruction set's unit. */
struct codec_copy {
    uint32_t new;
    uint32_t length;
    uint32_t from;
    uint32_t from_old; /* 1: of the old image, 0: of the new one */
};

/* What an encoder is told. Segments come in the order of the new image; none overlaps another. */
struct codec_plan {
    const uint8_t *header; /* of the file, as it will stand there */
    size_t header_length;
    const uint8_t *old;
    uint32_t old_length;
    const uint8_t *new;
    uint32_t new_length;
    const struct codec_segment *table; /* as many as the header says */
    const struct codec_segment *local; /* those that are not in the table */
    uint32_t locals;
    const struct codec_copy *copies; /* in order; of format version 2 */
    uint32_t copy_count;
    uint32_t digest; /* where the new image holds the SHA-256 of its first `hashed` bytes, or 0 */
    uint32_t hashed;
};

/* Bytes of the new image. All others are as predicted, or calculated. */
struct codec_counts {
    uint32_t copied; /* as they were in the old one */
    uint32_t fresh;  /* that the file has to say */
};

/* Writes the file's bytes after the header to `out`, which has room for `size`. Returns how many
 * they are, even when these are more, or what is wrong (`enum delta_error`). Counts what became of
 * the image. */
int64_t codec_encode(const struct codec_plan *plan, codec_sha256 *sha256, uint8_t *out, size_t size,
                     struct codec_counts *counts);

/* Rebuilds the new image of a file, which has to be as long as the header says. Returns an `enum
 * delta_error`. */
int codec_decode(const uint8_t *old, uint32_t old_length, const uint8_t *file, size_t file_length,
                 codec_sha256 *sha256, uint8_t *image, uint32_t length);

#pragma GCC visibility pop
