/* A NOR flash with the Intel command set (0x0001). Sources: the data sheet of Micron P30-65nm (256
 * Mb to 512 Mb, rev. D), whose numbers a chip's file may give, and JEP137. */
#include "nor_cfi.h"

enum {
    CLEAR_STATUS = 0x50,
    WORD_PROGRAM = 0x40,
    WORD_PROGRAM_2 = 0x10,
    BLOCK_ERASE = 0x20,
    LOCK_SETUP = 0x60,
    READ_STATUS = 0x70,
    READ_ID = 0x90,
    READ_QUERY = 0x98,
    SUSPEND = 0xb0,
    CONFIRM = 0xd0,
    BUFFERED_PROGRAM = 0xe8,
    READ_ARRAY = 0xff
};
enum { LOCK_BLOCK = 0x01, SET_CONFIGURATION = 0x03, LOCK_DOWN = 0x2f };
enum {
    SR_LOCKED = 1u << 1,
    SR_PROGRAM_SUSPENDED = 1u << 2,
    SR_PROGRAM_ERROR = 1u << 4,
    SR_ERASE_ERROR = 1u << 5,
    SR_ERASE_SUSPENDED = 1u << 6,
    SR_READY = 1u << 7,
    SR_SEQUENCE = SR_PROGRAM_ERROR | SR_ERASE_ERROR
};
enum output { ARRAY, STATUS, IDENTITY };
enum step { READY, WORD, COUNT, DATA, BUFFER_CONFIRM, ERASE, LOCK };
enum { LOCKED_NOW = 1, LOCKED_DOWN = 2 };
enum { OWN_LOCKS = CFI_OWN }; /* whether blocks are locked when power comes */

struct intel {
    struct cfi c;
    enum output output;
    enum step step;
    uint32_t errors; /* bits of the status register that stay until they are cleared */
    uint32_t at;     /* where the command was given */
    uint32_t configuration;
    uint8_t *locks; /* of each block */
};

static struct intel *of(struct cfi *c) {
    return (struct intel *)c;
}

static bool is_array(const struct cfi *c) {
    return ((const struct intel *)c)->output == ARRAY && !c->in_query && !c->job.busy;
}

static uint32_t status(const struct intel *i) {
    uint32_t bits = i->errors | (i->c.job.busy ? 0 : SR_READY);
    if (i->c.suspended.busy) {
        bits |= i->c.suspended.kind == OP_ERASE ? SR_ERASE_SUSPENDED : SR_PROGRAM_SUSPENDED;
    }
    return bits;
}

static uint32_t query(const struct cfi *c, uint32_t word) {
    enum { SUSPENDS = 0x06, LOCKS = 0x20, LENGTH = 16 };
    uint8_t extended[LENGTH] = {'P', 'R', 'I', '1', '1', SUSPENDS};
    extended[5] |= c->numbers[OWN_LOCKS] ? LOCKS : 0;
    extended[9] = 1;  /* programs while an erase is suspended */
    extended[10] = 3; /* the lock and lock-down bits are there */
    extended[12] = 0x33;
    return cfi_query(c, word, 0x0001, extended, LENGTH);
}

static uint32_t identity(struct intel *i, uint32_t offset) {
    struct cfi_block block = cfi_block(&i->c, offset);
    uint32_t word = cfi_word(&i->c, offset - block.start) >> i->c.extra_bit;
    switch (word) {
    case 0:
        return i->c.numbers[CFI_MAKER];
    case 1:
        return i->c.numbers[CFI_DEVICE];
    case 2:
        return i->locks[block.number];
    case 5:
        return i->configuration;
    default:
        return 0xff;
    }
}

static uint32_t answer(struct mcu *m, struct cfi *c, uint32_t offset) {
    struct intel *i = of(c);
    if (c->job.busy || (i->output == STATUS && !c->in_query)) {
        return cfi_by_all(c, status(i));
    }
    if (c->in_query) {
        return cfi_by_all(c, query(c, cfi_word(c, offset) & (0xff << c->extra_bit | 1)));
    }
    return i->output == IDENTITY ? cfi_by_all(c, identity(i, offset)) : cfi_cells(m, c, offset);
}

static void refuse(struct mcu *m, struct intel *i, uint32_t kind, uint32_t offset, uint32_t bits) {
    i->errors |= bits;
    fault(m, kind, i->c.flash.first + offset, bits);
}

/* Whether a block may be changed now. */
static bool may_change(struct mcu *m, struct intel *i, uint32_t offset, uint32_t bits) {
    if (i->locks[cfi_block(&i->c, offset).number]) {
        refuse(m, i, FAULT_FLASH_PROTECTED, offset, bits | SR_LOCKED);
        return false;
    }
    if (cfi_in_suspended(&i->c, offset)) {
        refuse(m, i, FAULT_FLASH_COMMAND, offset, bits);
        return false;
    }
    return true;
}

static void begin(struct mcu *m, struct intel *i, uint32_t offset, uint32_t length,
                  const uint8_t *data, uint32_t us) {
    uint32_t bits = data ? SR_PROGRAM_ERROR : SR_ERASE_ERROR;
    if (may_change(m, i, offset, bits)) {
        if (data && offset < i->c.flash.size) {
            cfi_is_dirty(m, &i->c, offset, data, length);
        }
        i->errors |= cfi_begin(m, &i->c, offset, length, data, us) ? 0 : bits;
    }
}

static void program_word(struct mcu *m, struct intel *i, uint32_t offset, uint32_t value) {
    uint8_t data[sizeof value];
    put32(data, value);
    begin(m, i, offset, i->c.bus, data, i->c.numbers[CFI_PROGRAM_US]);
}

static void program_buffer(struct mcu *m, struct intel *i) {
    struct cfi *c = &i->c;
    uint32_t at = c->first % (c->numbers[CFI_BUFFER] * c->chips);
    begin(m, i, c->first, c->length, c->data + at, cfi_buffer_us(c));
}

static void lock(struct mcu *m, struct intel *i, uint32_t offset, uint32_t command) {
    uint8_t *state = &i->locks[cfi_block(&i->c, offset).number];
    bool locks = i->c.numbers[OWN_LOCKS];
    if (command == SET_CONFIGURATION) {
        i->configuration = cfi_word(&i->c, offset) & 0xffff;
        i->output = ARRAY;
    } else if (command == LOCK_BLOCK) {
        *state |= locks ? LOCKED_NOW : 0;
    } else if (command == LOCK_DOWN) {
        *state |= locks ? LOCKED_NOW | LOCKED_DOWN : 0;
    } else if (command != CONFIRM) {
        refuse(m, i, FAULT_FLASH_COMMAND, offset, SR_SEQUENCE);
    } else if (*state & LOCKED_DOWN) { /* WP# is low: until the next power-up */
        fault(m, FAULT_FLASH_PROTECTED, i->c.flash.first + offset, command);
    } else {
        *state = 0;
    }
}

static void begin_step(struct mcu *m, struct intel *i, enum step step, uint32_t offset) {
    const struct cfi *c = &i->c;
    bool erases = step == ERASE, programs = step == WORD || step == COUNT;
    i->output = STATUS;
    i->at = offset;
    if (c->suspended.busy && (erases || (programs && c->suspended.kind == OP_PROGRAM))) {
        refuse(m, i, FAULT_FLASH_COMMAND, offset, SR_SEQUENCE);
    } else {
        i->step = step;
    }
}

static void take_command(struct mcu *m, struct intel *i, uint32_t offset, uint32_t command) {
    struct cfi *c = &i->c;
    c->in_query = command == READ_QUERY;
    switch (command) {
    case READ_ARRAY:
        i->output = ARRAY;
        break;
    case READ_STATUS:
        i->output = STATUS;
        break;
    case READ_ID:
        i->output = IDENTITY;
        break;
    case READ_QUERY:
        break;
    case CLEAR_STATUS:
        i->errors = 0;
        break;
    case WORD_PROGRAM:
    case WORD_PROGRAM_2:
        begin_step(m, i, WORD, offset);
        break;
    case BUFFERED_PROGRAM:
        begin_step(m, i, c->numbers[CFI_BUFFER] ? COUNT : READY, offset);
        break;
    case BLOCK_ERASE:
        begin_step(m, i, ERASE, offset);
        break;
    case LOCK_SETUP:
        begin_step(m, i, LOCK, offset);
        break;
    case CONFIRM:
        if (c->suspended.busy) {
            cfi_resume(m, c);
            i->output = STATUS;
        }
        break;
    case SUSPEND:
    case 0xf0: /* drivers that look for a chip of the other command set */
        break;
    default:
        fault(m, FAULT_FLASH_STRAY, c->flash.first + offset, command);
        break;
    }
}

static void take_while_busy(struct mcu *m, struct intel *i, uint32_t offset, uint32_t command) {
    if (command == SUSPEND && !i->c.suspended.busy) {
        cfi_suspend(m, &i->c);
        i->output = STATUS;
    } else if (command != READ_STATUS && command != SUSPEND) {
        fault(m, FAULT_FLASH_BUSY, i->c.flash.first + offset, command);
    }
}

static void take_data(struct mcu *m, struct intel *i, enum step step, uint32_t offset,
                      uint32_t value) {
    struct cfi *c = &i->c;
    if (step == WORD) {
        program_word(m, i, offset, value);
    } else if (step == COUNT) {
        i->step = cfi_open_buffer(c, (value & 0xffff) + 1, i->at) ? DATA : READY;
    } else {
        cfi_fill_buffer(c, offset, value);
        i->step = c->left ? DATA : BUFFER_CONFIRM;
    }
    if (step == COUNT && i->step == READY) {
        refuse(m, i, FAULT_FLASH_COMMAND, offset, SR_SEQUENCE);
    }
}

static void take(struct mcu *m, struct cfi *c, uint32_t offset, uint32_t value) {
    struct intel *i = of(c);
    uint32_t command = value & 0xff;
    enum step step = i->step;
    if (c->job.busy) {
        take_while_busy(m, i, offset, command);
        return;
    }
    i->step = READY;
    if (step == READY) {
        take_command(m, i, offset, command);
    } else if (step == LOCK) {
        lock(m, i, offset, command);
    } else if (step == WORD || step == COUNT || step == DATA) {
        take_data(m, i, step, offset, value);
    } else if (command != CONFIRM || (step == BUFFER_CONFIRM && !cfi_buffer_is_right(c))) {
        refuse(m, i, FAULT_FLASH_COMMAND, offset, SR_SEQUENCE);
    } else if (step == BUFFER_CONFIRM) {
        program_buffer(m, i);
    } else {
        struct cfi_block block = cfi_block(c, offset);
        begin(m, i, block.start, block.size, NULL, c->numbers[CFI_ERASE_US]);
    }
}

static void start(struct cfi *c) {
    struct intel *i = of(c);
    i->output = ARRAY;
    i->step = READY;
    i->errors = 0;
    i->configuration = 0xbfcf;
    memset(i->locks, c->numbers[OWN_LOCKS] ? LOCKED_NOW : 0, c->blocks);
}

static void release(struct device *d) {
    free(((struct intel *)d)->locks);
    free(d);
}

void nor_cfi_intel_add(struct mcu *m, const struct device_place *place) {
    struct intel *i = device_memory(m, sizeof *i);
    i->c.answer = answer;
    i->c.take = take;
    i->c.is_array = is_array;
    i->c.start = start;
    i->c.device.free = release;
    cfi_add(m, &i->c, place);
    i->locks = device_memory(m, i->c.blocks);
}
