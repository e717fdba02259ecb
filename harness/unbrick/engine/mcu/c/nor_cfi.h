/* What the parallel NOR flashes of both command sets share: the bus, the query, operations. */
#pragma once

#include "devices.h"

/* The numbers of a chip's file, in the order of unbrick/board/device_models.py. */
enum cfi_number {
    CFI_WIDTH, /* bits of a chip's bus */
    CFI_CHIPS, /* side by side */
    CFI_BYTE_MODE,
    CFI_SIZE, /* bytes of all chips; 0: those of the region */
    CFI_MAKER,
    CFI_DEVICE,
    CFI_EXTENDED,
    CFI_BUFFER, /* bytes of a chip's write buffer; 0: it has none */
    CFI_PROGRAM_US,
    CFI_BUFFER_US,
    CFI_ERASE_US,
    CFI_SUSPEND_US,
    CFI_OWN, /* of the command set from here on */
    CFI_NUMBERS
};

/* Chips side by side share all control lines, so they are in the same state. An offset is in all of
 * them, in bytes. A cycle is an access as wide as the bus. */
struct cfi {
    struct device device;
    struct flash flash;
    struct flash_job job, suspended; /* `suspended.busy`: there is one */
    uint32_t numbers[CFI_NUMBERS];
    const uint32_t *block_sizes;
    uint32_t block_count, blocks;     /* in the region; in the chip, of which it may be a part */
    uint32_t width, chips, bus, size; /* bytes */
    bool extra_bit; /* a chip of 16 bits used with 8: its addresses have a bit more */

    bool in_query; /* it answers with its tables */
    /* Of the command set. A cycle that reads something else than the array, by all chips; a cycle
     * that writes; whether all reads are of the array; what there is to do by itself, and when. */
    uint32_t (*answer)(struct mcu *m, struct cfi *c, uint32_t offset);
    void (*take)(struct mcu *m, struct cfi *c, uint32_t offset, uint32_t value);
    bool (*is_array)(const struct cfi *c);
    void (*settle)(struct mcu *m, struct cfi *c, bool has_ended); /* may be NULL */
    uint64_t (*due)(const struct cfi *c);                         /* may be NULL */
    void (*start)(struct cfi *c);                                 /* as after a reset */

    /* A buffer that is filled; `data` is 0xff where nothing was given. */
    uint32_t first, length, left, page; /* `page`: that all words must be in */
    bool wrong;
    uint8_t data[OPERATION_MAX];
};

struct cfi_block {
    uint32_t number, start, size;
};

void cfi_add(struct mcu *m, struct cfi *c, const struct device_place *place);

/* An address as the chips see it, and one of their words as all chips give it. */
uint32_t cfi_word(const struct cfi *c, uint32_t offset);
uint32_t cfi_by_all(const struct cfi *c, uint32_t value);
uint32_t cfi_cells(struct mcu *m, struct cfi *c, uint32_t offset);
uint32_t cfi_query(const struct cfi *c, uint32_t word, uint32_t set, const uint8_t *extended,
                   uint32_t length);
struct cfi_block cfi_block(const struct cfi *c, uint32_t offset);

/* Whether a program would set bits to 1. It is a fault of the firmware. */
bool cfi_is_dirty(struct mcu *m, struct cfi *c, uint32_t offset, const uint8_t *data,
                  uint32_t length);
/* Begins an operation; `data` NULL: an erase. False: what it is for is not modelled. */
bool cfi_begin(struct mcu *m, struct cfi *c, uint32_t offset, uint32_t length, const uint8_t *data,
               uint32_t us);
void cfi_suspend(struct mcu *m, struct cfi *c);
void cfi_resume(struct mcu *m, struct cfi *c);
bool cfi_in_suspended(const struct cfi *c, uint32_t offset);

/* The buffer: how many words are to come, for a block; false: too many. Then each of them. */
bool cfi_open_buffer(struct cfi *c, uint32_t words, uint32_t block);
void cfi_fill_buffer(struct cfi *c, uint32_t offset, uint32_t value);
bool cfi_buffer_is_right(const struct cfi *c);
uint32_t cfi_buffer_us(const struct cfi *c);
