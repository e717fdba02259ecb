/* What has a say in a session: the units of the flash whose first contents are read before an erase
 * of their block has ended. Sets have a bit for each unit of the flash image. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"

/* The bits of units `first` to `last` in word number `word` of a set. */
static uint64_t bits_of(uint32_t word, uint32_t first, uint32_t last) {
    uint64_t bits = UINT64_MAX;
    if (word == first / UNITS_AT_ONCE) {
        bits &= UINT64_MAX << first % UNITS_AT_ONCE;
    }
    if (word == last / UNITS_AT_ONCE) {
        bits &= UINT64_MAX >> (UNITS_AT_ONCE - 1 - last % UNITS_AT_ONCE);
    }
    return bits;
}

void note_range(struct mcu *m, uint32_t offset, uint32_t length) {
    assert(offset < m->image_size && length && length <= m->image_size - offset);
    uint32_t first = offset / UNIT, last = (offset + length - 1) / UNIT;
    for (uint32_t word = first / UNITS_AT_ONCE; word <= last / UNITS_AT_ONCE; word++) {
        m->relevant[word] |= bits_of(word, first, last) & ~m->erased[word];
    }
}

void note_erase(struct mcu *m, uint32_t offset, uint32_t length) {
    uint32_t first = offset / UNIT, last = (offset + length - 1) / UNIT;
    for (uint32_t word = first / UNITS_AT_ONCE; m->noting && word <= last / UNITS_AT_ONCE; word++) {
        m->erased[word] |= bits_of(word, first, last);
    }
}

void note_cells(struct mcu *m, const struct flash *f, uint32_t offset, uint32_t length) {
    note(m, NOTE_CONTROLLER, f->first + offset, length);
}

static size_t set_size(const struct mcu *m) {
    return (m->image_size / UNIT / UNITS_AT_ONCE + 1) * sizeof *m->relevant;
}

void mcu_note_reads(struct mcu *m, uint32_t sources) {
    assert(!m->powered);
    if (!m->relevant) {
        m->relevant = malloc(set_size(m));
        m->erased = malloc(set_size(m));
        if (!m->relevant || !m->erased) {
            abort();
        }
    }
    memset(m->relevant, 0, set_size(m));
    memset(m->erased, 0, set_size(m));
    forget_notes_of_blocks(m);
    if (!m->noting != !sources) {
        forget_pages(m);
    }
    m->noting = sources;
}

void mcu_note(struct mcu *m, uint32_t offset, uint32_t length) {
    if (length) {
        note(m, NOTE_HOST, offset, length);
    }
}

static void add_units(const struct mcu *m, uint32_t offset, uint32_t length) {
    for (uint32_t unit = offset / UNIT; unit * UNIT < offset + length; unit++) {
        m->relevant[unit / UNITS_AT_ONCE] |= UINT64_C(1) << unit % UNITS_AT_ONCE;
    }
}

/* Who has read a part of what has a check cell has read all of it, and the check cell. */
static void note_checks(const struct mcu *m) {
    for (size_t i = 0; i < m->region_count && m->relevant; i++) {
        const struct flash *f = m->regions[i].flash;
        for (uint32_t at = 0; f->check && at < f->size; at += UNIT) {
            uint32_t unit = (f->first + at) / UNIT;
            if (!m->relevant[unit / UNITS_AT_ONCE]) {
                at += (UNITS_AT_ONCE - 1 - unit % UNITS_AT_ONCE) * UNIT;
            } else if (m->relevant[unit / UNITS_AT_ONCE] >> unit % UNITS_AT_ONCE & 1) {
                add_units(m, f->first + at - at % f->check_unit, f->check_unit);
                add_units(m, f->first + f->size + at / f->check_unit, 1);
            }
        }
    }
}

size_t mcu_relevant(const struct mcu *m, uint8_t *out, size_t capacity) {
    size_t size = m->relevant ? set_size(m) : 0;
    note_checks(m);
    for (size_t i = 0; i < size && i < capacity; i++) {
        out[i] = (uint8_t)(m->relevant[i / 8] >> i % 8 * 8);
    }
    return size;
}
