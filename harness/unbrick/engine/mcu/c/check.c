/* Check cells (ECC): a byte beside each unit of a flash. Code that reads or executes a unit that
 * does not hold what its check cell says does so all the same, and then the flash is told.
 *
 * The code is that of `unbrick/flash/check.py`, and no vendor's. No wrong bit is corrected. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"

enum { POLYNOMIAL = 0x07 }; /* x^8 + x^2 + x + 1, whose period is 127 */
enum { OTHER = 0x10 };      /* bit of the first byte that stands for another pattern */

static uint8_t remainder_of(const uint8_t *data, uint32_t length, bool blank) {
    static uint8_t steps[256];
    for (unsigned byte = 1; !steps[1] && byte < 256; byte++) {
        unsigned step = 256 - byte;
        for (unsigned bit = 0; bit < 8; bit++) {
            step = (step << 1 ^ (step & 0x80 ? POLYNOMIAL : 0u)) & 0xff;
        }
        steps[256 - byte] = (uint8_t)step;
    }
    uint8_t remainder = 0;
    for (uint32_t i = 0; i < length; i++) {
        remainder = steps[remainder ^ (blank ? 0xff : data[i])];
    }
    return remainder;
}

void check_find(const struct flash *f, const uint8_t *data, uint32_t length, uint8_t *checks) {
    assert(f->check_unit && length % f->check_unit == 0);
    uint8_t other = remainder_of(data, f->check_unit, true) ^ 0xff;
    for (uint32_t at = 0; at < length; at += f->check_unit) {
        uint8_t remainder = remainder_of(data + at, f->check_unit, false);
        checks[at / f->check_unit] = remainder ^ (data[at] & OTHER ? other : 0);
    }
}

static bool is_unit_broken(const struct flash *f, uint32_t offset) {
    uint8_t check;
    offset -= offset % f->check_unit;
    check_find(f, f->cells + offset, f->check_unit, &check);
    return check != f->check[offset / f->check_unit];
}

bool check_is_broken(const struct flash *f, uint32_t offset, uint32_t length) {
    assert(offset <= f->size && length <= f->size - offset);
    for (uint32_t at = offset - offset % f->check_unit; at < offset + length; at += f->check_unit) {
        if (is_unit_broken(f, at)) {
            return true;
        }
    }
    return false;
}

void check_program(struct flash *f, uint32_t offset, const uint8_t *data, uint32_t length) {
    for (uint32_t at = 0; f->check && at < length; at += f->check_unit) {
        uint8_t check;
        check_find(f, data + at, f->check_unit, &check);
        f->check[(offset + at) / f->check_unit] &= check;
    }
}

void check_erase(struct mcu *m, struct flash *f, uint32_t offset, uint32_t length) {
    if (f->check) {
        uint32_t first = offset / f->check_unit, count = length / f->check_unit;
        memset(f->check + first, 0xff, count);
        note_erase(m, f->first + f->size + first, count);
    }
}

void check_add(struct region *r) {
    assert(r->mapped && PAGE % r->flash->check_unit == 0);
    r->broken = calloc(r->flash->size / PAGE, 1);
    if (!r->broken) {
        abort();
    }
}

/* Cells or check cells were changed. Most changes are those of one unit that is right then. */
void check_look(struct mcu *m, struct region *r, uint32_t offset, uint32_t length) {
    const struct flash *f = r->flash;
    if (!r->broken || !length) {
        return;
    }
    for (uint32_t page = offset / PAGE; page <= (offset + length - 1) / PAGE; page++) {
        bool one = length <= f->check_unit && !r->broken[page];
        uint8_t broken = 0;
        for (uint32_t at = page * PAGE; !one && at < (page + 1) * PAGE; at += f->check_unit) {
            broken += is_unit_broken(f, at);
        }
        broken += one && is_unit_broken(f, offset);
        r->broken[page] = broken;
        m->has_broken |= broken != 0;
        m->end = broken && !m->watches ? 0 : m->end; /* accesses are to be looked at from now on */
    }
}

/* The host has changed cells, and their check cells are to be right. */
void check_mend(struct mcu *m, struct region *r, uint32_t offset, uint32_t length) {
    struct flash *f = r->flash;
    for (uint32_t at = offset; r->broken && at < offset + length; at++) {
        uint32_t start = at - at % f->check_unit;
        check_find(f, f->cells + start, f->check_unit, &f->check[start / f->check_unit]);
    }
    check_look(m, r, offset, length);
}

bool check_is_broken_page(const struct region *r, uint32_t offset) {
    return r->broken && r->broken[offset / PAGE];
}

bool check_is_broken_at(struct mcu *m, uint32_t address, uint32_t length) {
    uint32_t offset = 0;
    if (!m->has_broken || m->letting) {
        return false;
    }
    const struct region *r = find_flash(m, address, &offset);
    if (!r || !check_is_broken_page(r, offset)) {
        return false;
    }
    uint32_t left = r->flash->size - offset;
    return check_is_broken(r->flash, offset, length < left ? length : left);
}

/* A handler of a fault may ask that bus faults of data be ignored. */
static bool is_refused(struct mcu *m, const struct flash *f, bool reads) {
    enum { BFHFNMIGN = 1 << 8 };
    bool ignored = m->scs.ccr & BFHFNMIGN && execution_priority(m, WITH_ALL) < 0;
    return f->broken_faults && !(reads && ignored);
}

void pass_broken(struct mcu *m) {
    uint32_t offset = 0, at = m->broken_at;
    uint16_t first = 0;
    bool reads = m->trapped;
    const struct region *r = find_flash(m, at, &offset);
    bool refused = is_refused(m, r->flash, reads);
    m->broken = m->trapped = m->stopping = false;
    if (refused) {
        take_fault(m, EXC_BUS, reads ? PRECISERR | BFARVALID : IBUSERR, at);
    } else if (reads) { /* the instruction that reads; a block that is broken is executed later */
        bool wide = halfword_at(m, m->pc, &first) && first >= 0xe800;
        uint32_t next = m->pc + (wide ? 4 : 2);
        forget_range(m, m->pc, next);
        m->letting = true;
        emulate(m, next);
        m->letting = false;
        m->pc = read_register(m, REG_PC);
    } else {
        m->let_block = at;
    }
    while (!is_unit_broken(r->flash, offset)) { /* the first one */
        offset += r->flash->check_unit;
    }
    r->flash->on_broken(m, r->flash, offset);
}
