/* What this board's parts have noted of what has a say in a session; see ../../c/notes.h. */
#include <assert.h>
#include <string.h>

#include "parts.h"

/* The chips look at words of the array, and do something else for what these hold. */
void note_cells(struct board *b, uint32_t word, uint32_t count) {
    notes_add(&b->notes, NOTE_CONTROLLER, word * 4, count * 4);
    for (uint32_t page = word * 4 / PAGE; page <= ((word + count) * 4 - 1) / PAGE; page++) {
        stretch_reads(b, page * PAGE);
    }
}

/* One chip has erased a block. What was there is gone when each of them has. */
void note_erase(struct board *b, int chip, uint32_t word) {
    uint32_t number = word * 4 / NOR_BLOCK;
    b->erased[number] |= (uint8_t)(1u << chip);
    if (b->erased[number] == (1u << NOR_CHIPS) - 1) {
        notes_erase(&b->notes, number * NOR_BLOCK, NOR_BLOCK);
    }
}

/* A block of code begins. Where Unicorn ends one before the last halfword of a page, it has seen
 * that this begins an instruction of two. */
void note_block(struct board *b, uint32_t address, uint32_t size) {
    if (address >= NOR_MODELLED) {
        return;
    }
    size += (address + size) % PAGE == PAGE - 2 || !size ? 2 : 0;
    uint32_t left = NOR_MODELLED - address;
    notes_add(&b->notes, NOTE_FETCHES, address, size < left ? size : left);
}

/* A load from the array alias. It takes no time of its own, whether it is noted or not. */
uint64_t board_mmio_noted_read(void *uc, uint64_t offset, unsigned size, void *user) {
    struct board *b = user;
    uint64_t value = 0;
    (void)uc;
    assert(size <= sizeof value && offset <= NOR_MODELLED - size);
    notes_add(&b->notes, NOTE_LOADS, (uint32_t)offset, size);
    memcpy(&value, b->nor + offset, size);
    return value;
}

void board_note_reads(struct board *b, uint32_t sources) {
    assert(!b->powered);
    memset(b->erased, 0, sizeof b->erased);
    notes_begin(&b->notes, NOR_MODELLED, sources);
}

void board_note(struct board *b, uint32_t offset, uint32_t length) {
    if (length) {
        notes_add(&b->notes, NOTE_HOST, offset, length);
    }
}

size_t board_relevant(const struct board *b, uint8_t *out, size_t capacity) {
    return notes_take(&b->notes, out, capacity);
}
