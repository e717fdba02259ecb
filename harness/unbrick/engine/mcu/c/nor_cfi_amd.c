/* A NOR flash with the AMD command set (0x0002). Sources: the data sheets of Spansion S29GL-N
 * (27631) and AMD Am29LV160D (22358), and JEP137. What the chip does with wrong sequences, it does:
 * it goes back to its array, and the firmware is at fault. */
#include "nor_cfi.h"

enum {
    PROGRAM_ERASED_CHIP = 0x10,
    UNLOCK_BYPASS = 0x20,
    BUFFER = 0x25,
    BUFFER_CONFIRM = 0x29,
    SECTOR_ERASE = 0x30, /* resumes, too */
    ERASE_SETUP = 0x80,
    AUTOSELECT = 0x90,
    QUERY = 0x98,
    PROGRAM = 0xa0,
    SUSPEND = 0xb0,
    RESET = 0xf0
};
enum {
    DQ1 = 1u << 1, /* a buffer was refused */
    DQ2 = 1u << 2, /* toggles where an erase is under way, or suspended */
    DQ3 = 1u << 3, /* the erase takes no more sectors */
    DQ5 = 1u << 5, /* it took too long */
    DQ6 = 1u << 6, /* toggles */
    DQ7 = 1u << 7  /* not what is programmed; 0 in an erase */
};
enum step {
    READY,
    UNLOCKING,
    UNLOCKED,
    DATA_OF_WORD,
    ERASE_BEGUN,
    ERASE_UNLOCKING,
    ERASE_UNLOCKED,
    COUNT,
    DATA,
    CONFIRM,
    BYPASS_LEFT
};
enum { OWN_WINDOW_US = CFI_OWN }; /* in which an erase takes more sectors */
enum { MOST_SECTORS = 64 };

struct amd {
    struct cfi c;
    enum step step;
    bool autoselect, bypass, aborted, failed; /* DQ5 is to be shown */
    bool toggle, fails;                       /* this operation will end so */
    uint32_t last;                            /* word that is programmed: of all chips */
    uint32_t sectors[MOST_SECTORS], count;    /* offsets, that are still to be erased */
    uint64_t window;                          /* when their erase begins */
    uint32_t all_us;                          /* of an erase of all; 0: it is of sectors */
};

static struct amd *of(struct cfi *c) {
    return (struct amd *)c;
}

static bool is_busy(const struct amd *a) {
    return a->c.job.busy || a->count;
}

static bool is_array(const struct cfi *c) {
    const struct amd *a = (const struct amd *)c;
    return !is_busy(a) && !a->failed && !a->aborted && !a->autoselect && !c->in_query &&
           !c->suspended.busy;
}

static uint32_t query(const struct cfi *c, uint32_t word) {
    enum { LENGTH = 16, READ_AND_PROGRAM = 2, BOTTOM_BOOT = 2 };
    uint8_t extended[LENGTH] = {'P', 'R', 'I', '1', '3'};
    extended[6] = READ_AND_PROGRAM; /* while an erase is suspended */
    extended[15] = c->block_sizes[0] != c->block_sizes[c->block_count - 1] ? BOTTOM_BOOT : 0;
    return cfi_query(c, word, 0x0002, extended, LENGTH);
}

static uint32_t identity(const struct cfi *c, uint32_t offset) {
    uint32_t word = cfi_word(c, offset) >> c->extra_bit & 0xff;
    uint32_t mask = c->width == 1 ? 0xff : 0xffff;
    switch (word) {
    case 0x00:
        return c->numbers[CFI_MAKER];
    case 0x01:
        return c->numbers[CFI_DEVICE] & mask;
    case 0x0e:
        return c->numbers[CFI_EXTENDED] >> 16 & mask;
    case 0x0f:
        return c->numbers[CFI_EXTENDED] & mask;
    default: /* no sector is protected */
        return 0;
    }
}

/* The status of a program or an erase, of all chips. */
static uint32_t status(struct amd *a, uint32_t offset) {
    struct cfi *c = &a->c;
    bool erases = a->count || (c->job.busy && c->job.kind == OP_ERASE);
    uint32_t bits = a->failed ? DQ5 : 0;
    a->toggle = !a->toggle;
    bits |= a->toggle ? DQ6 : 0;
    if (erases) {
        bool here = !c->job.busy || offset - c->job.offset < c->job.length;
        bits |= (c->job.busy ? DQ3 : 0) | (here && a->toggle ? DQ2 : 0);
        return cfi_by_all(c, bits);
    }
    bits |= a->aborted ? DQ1 : 0;
    return cfi_by_all(c, bits) | (~a->last & cfi_by_all(c, DQ7));
}

static uint32_t answer(struct mcu *m, struct cfi *c, uint32_t offset) {
    struct amd *a = of(c);
    if (is_busy(a) || a->failed || a->aborted) {
        return status(a, offset);
    }
    if (c->in_query) {
        return cfi_by_all(c, query(c, cfi_word(c, offset) & (0xff << c->extra_bit | 1)));
    }
    if (a->autoselect) {
        return cfi_by_all(c, identity(c, offset));
    }
    if (cfi_in_suspended(c, offset)) {
        a->toggle = !a->toggle;
        return cfi_by_all(c, DQ7 | (a->toggle ? DQ2 : 0));
    }
    return cfi_cells(m, c, offset);
}

static bool is_unlock(const struct cfi *c, uint32_t offset, uint32_t command, bool first) {
    uint32_t word = cfi_word(c, offset), mask = c->extra_bit ? 0xfff : 0x7ff;
    uint32_t wanted = first ? 0x555 : 0x2aa;
    wanted = c->extra_bit ? wanted << 1 | !first : wanted;
    return (word & mask) == wanted && command == (first ? 0xaau : 0x55u);
}

/* The address of the third cycle is that of the first. */
static bool is_at_first(const struct cfi *c, uint32_t offset) {
    return is_unlock(c, offset, 0xaa, true);
}

static void refuse(struct mcu *m, struct amd *a, uint32_t kind, uint32_t offset, uint32_t value) {
    a->step = READY;
    fault(m, kind, a->c.flash.first + offset, value);
}

static void program(struct mcu *m, struct amd *a, uint32_t offset, uint32_t length,
                    const uint8_t *data, uint32_t us) {
    struct cfi *c = &a->c;
    memcpy(&a->last, data + length - c->bus, c->bus);
    if (cfi_in_suspended(c, offset)) {
        refuse(m, a, FAULT_FLASH_COMMAND, offset, a->last);
        return;
    }
    a->fails = offset < c->flash.size && cfi_is_dirty(m, c, offset, data, length);
    cfi_begin(m, c, offset, length, data, us);
}

static void program_word(struct mcu *m, struct amd *a, uint32_t offset, uint32_t value) {
    uint8_t data[sizeof value];
    put32(data, value);
    program(m, a, offset, a->c.bus, data, a->c.numbers[CFI_PROGRAM_US]);
}

/* Erases */

static void begin_erase(struct mcu *m, struct amd *a) {
    struct cfi *c = &a->c;
    struct cfi_block block = cfi_block(c, a->sectors[0]);
    a->fails = false;
    if (a->all_us) {
        a->count = 0;
        cfi_begin(m, c, 0, c->flash.size, NULL, a->all_us);
        return;
    }
    a->count--;
    memmove(a->sectors, a->sectors + 1, a->count * sizeof *a->sectors);
    cfi_begin(m, c, block.start, block.size, NULL, c->numbers[CFI_ERASE_US]);
}

static void add_sector(struct mcu *m, struct amd *a, uint32_t offset, uint32_t all_us) {
    if (a->c.suspended.busy || a->count == MOST_SECTORS) {
        refuse(m, a, FAULT_FLASH_COMMAND, offset, SECTOR_ERASE);
        return;
    }
    a->all_us = all_us;
    a->sectors[a->count++] = offset;
    a->window = mcu_now(m) + (uint64_t)a->c.numbers[OWN_WINDOW_US] * NS_PER_US;
}

static void settle(struct mcu *m, struct cfi *c, bool has_ended) {
    struct amd *a = of(c);
    if (has_ended && a->fails) {
        a->failed = true;
    }
    if (!c->job.busy && a->count && mcu_now(m) >= a->window) {
        begin_erase(m, a);
    }
}

static uint64_t due(const struct cfi *c) {
    const struct amd *a = (const struct amd *)c;
    return a->count && !c->job.busy ? a->window : NEVER;
}

static void take_while_busy(struct mcu *m, struct amd *a, uint32_t offset, uint32_t command) {
    struct cfi *c = &a->c;
    if (!c->job.busy && command == SECTOR_ERASE) {
        add_sector(m, a, offset, 0);
    } else if (command == SUSPEND && c->job.busy && c->job.kind == OP_ERASE && !a->all_us) {
        cfi_suspend(m, c);
    } else if (!c->job.busy) { /* anything else ends the window, and nothing is erased */
        a->count = 0;
        refuse(m, a, FAULT_FLASH_COMMAND, offset, command);
    } else if (command != RESET) {
        fault(m, FAULT_FLASH_BUSY, c->flash.first + offset, command);
    }
}

/* Commands */

static void take_first(struct mcu *m, struct amd *a, uint32_t offset, uint32_t command) {
    struct cfi *c = &a->c;
    uint32_t word = cfi_word(c, offset) & 0xff;
    if (a->bypass && command == PROGRAM) {
        a->step = DATA_OF_WORD;
    } else if (a->bypass && command == AUTOSELECT) {
        a->step = BYPASS_LEFT;
    } else if (is_unlock(c, offset, command, true)) {
        a->step = UNLOCKING;
    } else if (command == RESET) {
        a->autoselect = c->in_query = a->failed = false;
    } else if (command == QUERY && word == (c->extra_bit ? 0xaau : 0x55u)) {
        c->in_query = true;
    } else if (command == SECTOR_ERASE && c->suspended.busy) {
        cfi_resume(m, c);
    } else if (command != 0xff && command != QUERY) { /* of drivers that look for a chip */
        refuse(m, a, FAULT_FLASH_STRAY, offset, command);
    }
}

static void take_unlocked(struct mcu *m, struct amd *a, uint32_t offset, uint32_t command) {
    a->step = READY;
    if (command == BUFFER && a->c.numbers[CFI_BUFFER] && !a->aborted) {
        a->c.first = offset;
        a->step = COUNT;
    } else if (!is_at_first(&a->c, offset) || (a->aborted && command != RESET)) {
        refuse(m, a, FAULT_FLASH_COMMAND, offset, command);
    } else if (command == AUTOSELECT) {
        a->autoselect = true;
    } else if (command == PROGRAM) {
        a->step = DATA_OF_WORD;
    } else if (command == ERASE_SETUP) {
        a->step = ERASE_BEGUN;
    } else if (command == UNLOCK_BYPASS) {
        a->bypass = true;
    } else if (command == RESET) {
        a->aborted = a->autoselect = a->c.in_query = a->failed = false;
    } else {
        refuse(m, a, FAULT_FLASH_COMMAND, offset, command);
    }
}

static void take_erase(struct mcu *m, struct amd *a, uint32_t offset, uint32_t command) {
    struct cfi *c = &a->c;
    a->step = READY;
    if (command == SECTOR_ERASE) {
        add_sector(m, a, offset, 0);
    } else if (command == PROGRAM_ERASED_CHIP && is_at_first(c, offset) &&
               c->flash.size == c->size) {
        add_sector(m, a, 0, c->numbers[CFI_ERASE_US] * c->blocks);
        a->window = mcu_now(m);
    } else {
        refuse(m, a, FAULT_FLASH_COMMAND, offset, command);
    }
}

static void take_buffer(struct mcu *m, struct amd *a, enum step step, uint32_t offset,
                        uint32_t value) {
    struct cfi *c = &a->c;
    bool right = true;
    if (step == COUNT) {
        right = cfi_open_buffer(c, (value & 0xffff) + 1, c->first);
        a->step = DATA;
    } else if (step == DATA) {
        cfi_fill_buffer(c, offset, value);
        right = cfi_buffer_is_right(c);
        a->last = value;
        a->step = c->left ? DATA : CONFIRM;
    } else {
        a->step = READY;
        right = (value & 0xff) == BUFFER_CONFIRM;
    }
    if (!right) {
        a->aborted = true;
        refuse(m, a, FAULT_FLASH_COMMAND, offset, value);
    } else if (step == CONFIRM) {
        const uint8_t *data = c->data + c->first % (c->numbers[CFI_BUFFER] * c->chips);
        program(m, a, c->first, c->length, data, cfi_buffer_us(c));
    }
}

static void take(struct mcu *m, struct cfi *c, uint32_t offset, uint32_t value) {
    struct amd *a = of(c);
    uint32_t command = value & 0xff;
    if (is_busy(a)) {
        take_while_busy(m, a, offset, command);
        return;
    }
    enum step step = a->step;
    a->step = READY;
    switch (step) {
    case READY:
        take_first(m, a, offset, command);
        break;
    case UNLOCKING:
    case ERASE_UNLOCKING:
        if (is_unlock(c, offset, command, false)) {
            a->step = step == UNLOCKING ? UNLOCKED : ERASE_UNLOCKED;
        } else {
            refuse(m, a, FAULT_FLASH_COMMAND, offset, command);
        }
        break;
    case UNLOCKED:
        take_unlocked(m, a, offset, command);
        break;
    case ERASE_BEGUN:
        if (is_unlock(c, offset, command, true)) {
            a->step = ERASE_UNLOCKING;
        } else {
            refuse(m, a, FAULT_FLASH_COMMAND, offset, command);
        }
        break;
    case ERASE_UNLOCKED:
        take_erase(m, a, offset, command);
        break;
    case DATA_OF_WORD:
        program_word(m, a, offset, value);
        break;
    case BYPASS_LEFT:
        a->bypass = false;
        break;
    default:
        take_buffer(m, a, step, offset, value);
        break;
    }
}

static void start(struct cfi *c) {
    struct amd *a = of(c);
    a->step = READY;
    a->autoselect = a->bypass = a->aborted = a->failed = a->fails = a->toggle = false;
    a->count = a->last = 0;
}

void nor_cfi_amd_add(struct mcu *m, const struct device_place *place) {
    struct amd *a = device_memory(m, sizeof *a);
    a->c.answer = answer;
    a->c.take = take;
    a->c.is_array = is_array;
    a->c.settle = settle;
    a->c.due = due;
    a->c.start = start;
    a->c.device.free = device_free;
    cfi_add(m, &a->c, place);
}
