/* What this chip's parts have noted of what has a say in a session; see ../../c/notes.h. */
#include <assert.h>
#include <stdlib.h>

#include "core.h"

void note_erase(struct mcu *m, uint32_t offset, uint32_t length) {
    notes_erase(&m->notes, offset, length);
}

void note_cells(struct mcu *m, const struct flash *f, uint32_t offset, uint32_t length) {
    notes_add(&m->notes, NOTE_CONTROLLER, f->first + offset, length);
}

void mcu_note_reads(struct mcu *m, uint32_t sources) {
    assert(!m->powered);
    notes_begin(&m->notes, m->image_size, sources);
    joins_begin(m);
    forget_loads(m);
    m->erases = 0;
    m->pausing = false;
    forget_notes_of_blocks(m);
    forget_pages(m); /* loads of those of which all was noted are not */
}

void mcu_note(struct mcu *m, uint32_t offset, uint32_t length) {
    if (length) {
        notes_add(&m->notes, NOTE_HOST, offset, length);
    }
}

static void add_units(uint64_t *relevant, uint32_t offset, uint32_t length) {
    for (uint32_t unit = offset / UNIT; unit * UNIT < offset + length; unit++) {
        relevant[unit / UNITS_AT_ONCE] |= UINT64_C(1) << unit % UNITS_AT_ONCE;
    }
}

/* Who has read a part of what has a check cell has read all of it, and the check cell. */
void note_checks(const struct mcu *m, uint64_t *relevant) {
    for (size_t i = 0; i < m->region_count; i++) {
        const struct flash *f = m->regions[i].flash;
        for (uint32_t at = 0; f->check && at < f->size; at += UNIT) {
            uint32_t unit = (f->first + at) / UNIT;
            if (!relevant[unit / UNITS_AT_ONCE]) {
                at += (UNITS_AT_ONCE - 1 - unit % UNITS_AT_ONCE) * UNIT;
            } else if (relevant[unit / UNITS_AT_ONCE] >> unit % UNITS_AT_ONCE & 1) {
                add_units(relevant, f->first + at - at % f->check_unit, f->check_unit);
                add_units(relevant, f->first + f->size + at / f->check_unit, 1);
            }
        }
    }
}

size_t mcu_relevant(const struct mcu *m, uint8_t *out, size_t capacity) {
    struct notes all = {.size = m->notes.size, .relevant = joins_relevant(m)};
    if (all.relevant) {
        note_checks(m, all.relevant);
    }
    size_t size = notes_take(&all, out, capacity);
    free(all.relevant);
    return size;
}
