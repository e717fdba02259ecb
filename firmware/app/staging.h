/* The staging area: where the update file is received in SRAM, and where a differential file
 * becomes the new image (rows A3, A5, A8). Blocks are taken in any order, within STAGING_WINDOW of
 * the first that is missing. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "link/transfer.h"

/* What the announcement says of the file. */
struct staging_plan {
    bool differential;
    uint32_t file_size;      /* bytes, at least 1 */
    uint32_t image_size;     /* bytes; of a full image as many as the file has */
    uint32_t working_memory; /* bytes that rebuilding needs besides */
};

/* Bytes of SRAM that hold the file, the rebuilt image and the working memory at the same time. */
uint64_t staging_whole(const struct staging_plan *plan);

/* Bytes that will do when blocks of a differential file are decoded as they arrive. Never more than
   staging_whole(). */
uint64_t staging_least(const struct staging_plan *plan);

/* Begins with `size` bytes at `area`, of which staging_least() are needed; `area` is a multiple
 * of 8. */
void staging_begin(const struct staging_plan *plan, uint8_t *area, uint64_t size);

/* Takes the blocks of the file. */
extern const struct transfer_sink staging_sink;

/* All blocks are there: is it the file with this digest, and what image does it become? Returns
   RESULT_SUCCESS, and then `*image` is the first of image_size bytes; or why not. */
int staging_finish(const uint8_t file_digest[32], const uint8_t **image);
