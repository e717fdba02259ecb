/* An image in its slot: what it says of itself, and the marks that its updates leave. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "chip.h"

#define IMAGE_MAGIC 0x41425550u
#define MARKS (SLOT_SIZE - FLASH_PAGE_SIZE) /* offset of the slot's last page */

/* Lies in the words of the vector table that the core reserves. */
struct header {
    uint32_t magic;
    uint32_t version;
    uint32_t size; /* of the image, bytes */
    uint32_t crc;  /* CRC-32 of the image, this word taken as 0 */
};
#define HEADER_OFFSET (7u * 4u)
#define CRC_OFFSET (HEADER_OFFSET + 12u)

enum { TRIED = 0, CONFIRMED = 4 }; /* offsets of the marks in their page; each is a word, 0: set */

static inline const struct header *header_of(uint32_t slot) {
    return (const struct header *)(uintptr_t)(slot + HEADER_OFFSET);
}

static inline uint32_t read_mark(uint32_t slot, uint32_t mark) {
    return *(const volatile uint32_t *)(uintptr_t)(slot + MARKS + mark);
}

/* A mark that is torn counts as tried, and not as confirmed. */
static inline bool was_tried(uint32_t slot) {
    return read_mark(slot, TRIED) != 0xFFFFFFFFu;
}

static inline bool was_confirmed(uint32_t slot) {
    return read_mark(slot, CONFIRMED) == 0;
}

static inline void set_mark(uint32_t slot, uint32_t mark) {
    const uint32_t set = 0;
    flash_program(slot + MARKS + mark, &set, sizeof set);
}

/* Whether the slot holds a whole image. */
bool image_is_whole(uint32_t slot);
