/* A NOR chip. Source: Micron StrataFlash P30-65nm data sheet (256 Mb to 512 Mb, rev. D). */
#include <assert.h>
#include <string.h>

#include "parts.h"

/* Typical times, table "Program and Erase Characteristics" of the data sheet. */
#define T_WORD 270000u /* ns, as all of them */
#define T_ERASE 500000000u
#define T_BLANK 3200000u
#define T_SUSPEND 25000u

static uint8_t *cell(struct board *b, int chip, uint32_t word) {
    return b->nor + (size_t)word * 4 + (size_t)chip * 2;
}

static bool modelled(uint32_t word) {
    return word < NOR_MODELLED / 4;
}

static uint16_t array_word(struct board *b, int chip, uint32_t word) {
    return modelled(word) ? get16(cell(b, chip, word)) : 0xffff;
}

static void touch(struct board *b, uint32_t word, uint32_t count) {
    uint32_t low = word * 4, high = (word + count) * 4;
    if (low < b->dirty_low) {
        b->dirty_low = low;
    }
    if (high > b->dirty_high) {
        b->dirty_high = high;
    }
}

/* A deterministic 32-bit hash: which cells of a torn operation changed depends on nothing else. */
static uint32_t mix(uint32_t a, uint32_t c) {
    uint32_t x = a * 0x9e3779b1u ^ c * 0x85ebca77u;
    x ^= x >> 15;
    x *= 0x2c1b3c6du;
    x ^= x >> 12;
    x *= 0x297a2d39u;
    return x ^ x >> 15;
}

static void program_cell(struct board *b, int chip, uint32_t word, uint16_t data) {
    uint8_t *p = cell(b, chip, word);
    uint16_t old = get16(p);
    put16(p, old & data);
}

static void carry_out(struct board *b, int chip, struct job *j) {
    struct chip *c = &b->chips[chip];
    assert(j->kind != BUSY_NO && b->now >= j->end);
    assert(j->count > 0 && modelled(j->word) && modelled(j->word + j->count - 1));
    /* One that fails has come half way. The bit that says so stays until it is cleared. */
    uint32_t done = j->fails ? j->count / 2 : j->count;
    if (j->kind != BUSY_BLANK) {
        stretch_changes(b, chip, j);
    }
    if (j->kind == BUSY_ERASE) {
        for (uint32_t i = 0; i < done; i++) {
            put16(cell(b, chip, j->word + i), 0xffff);
        }
        if (done == j->count) {
            note_erase(b, chip, j->word);
        }
        c->status |= j->fails && !j->silent ? SR_ERASE_ERROR : 0;
    } else if (j->kind == BUSY_WORD || j->kind == BUSY_BUFFER) {
        for (uint32_t i = 0; i < done; i++) {
            if (j->given[i]) {
                program_cell(b, chip, j->word + i, j->data[i]);
            }
        }
        if (j->fails && j->spoils) {
            program_cell(b, chip, j->word + done, 0);
        }
        c->status |= j->fails && !j->silent ? SR_PROGRAM_ERROR : 0;
    } else if (j->kind == BUSY_BLANK) {
        note_cells(b, j->word, j->count);
        for (uint32_t i = 0; i < j->count; i++) {
            if (get16(cell(b, chip, j->word + i)) != 0xffff) {
                c->status |= SR_ERASE_ERROR;
            }
        }
    }
    if (j->kind != BUSY_BLANK) {
        touch(b, j->word, j->count);
    }
    j->kind = BUSY_NO;
    c->status |= SR_READY;
}

bool chip_shows_half(struct board *b, int chip) {
    const struct job *j = &b->chips[chip].job;
    for (uint32_t i = j->count / 2; i < j->count; i++) {
        uint16_t old = array_word(b, chip, j->word + i);
        if (j->kind == BUSY_ERASE ? old != 0xffff : j->given[i] && old & ~j->data[i]) {
            return true;
        }
    }
    return false;
}

/* Power was lost in the middle: words before `done` are programmed, one has some of its bits, the
 * rest none; an erase has moved a share of the bits to one. */
static void tear(struct board *b, int chip, struct job *j) {
    assert(j->kind != BUSY_NO && j->end > j->start);
    assert(j->count > 0 && modelled(j->word) && modelled(j->word + j->count - 1));
    stretch_changes(b, chip, j);
    uint64_t total = j->end - j->start;
    uint64_t spent = b->now > j->start ? b->now - j->start : 0;
    if (spent >= total) {
        carry_out(b, chip, j);
        return;
    }
    uint32_t share = (uint32_t)(spent * 256 / total);
    if (j->kind == BUSY_ERASE) {
        for (uint32_t i = 0; i < j->count; i++) {
            uint16_t ones = 0;
            for (unsigned bit = 0; bit < 16; bit++) {
                if ((mix(j->serial * 2 + (uint32_t)chip, i * 16 + bit) & 0xff) < share) {
                    ones |= (uint16_t)(1u << bit);
                }
            }
            uint8_t *p = cell(b, chip, j->word + i);
            put16(p, get16(p) | ones);
        }
    } else if (j->kind == BUSY_WORD || j->kind == BUSY_BUFFER) {
        uint32_t done = (uint32_t)(spent * j->count / total);
        for (uint32_t i = 0; i <= done && i < j->count; i++) {
            uint16_t keep = i < done ? 0 : (uint16_t)mix(j->serial * 2 + (uint32_t)chip, i);
            if (j->given[i]) {
                program_cell(b, chip, j->word + i, j->data[i] | keep);
            }
        }
    }
    touch(b, j->word, j->count);
    j->kind = BUSY_NO;
}

void chip_settle(struct board *b, int chip) {
    struct chip *c = &b->chips[chip];
    if (c->job.kind != BUSY_NO && b->now >= c->job.end) {
        carry_out(b, chip, &c->job);
    }
}

static uint64_t buffer_time(uint32_t words) {
    if (words <= 64) {
        return 310000;
    }
    if (words <= 128) {
        return 375000;
    }
    return words <= 256 ? 505000 : 900000;
}

static const uint8_t cfi[0x30] = {
    [0x10] = 'Q',  'R',           'Y',  0x01, 0x00, 0x0a, 0x01, 0x00, 0x00, 0x00, 0x00,
    [0x1b] = 0x17, 0x20,          0x85, 0x95, 0x08, 0x09, 0x09, 0x00, 0x02, 0x03, 0x03,
    0x00,          [0x27] = 0x19, 0x01, 0x00, 0x0a, 0x00, 0x01, 0xff, 0x00, 0x00,
};

static uint16_t chip_query(uint32_t word) {
    static const uint8_t extended[5] = {'P', 'R', 'I', '1', '5'};
    word &= 0x1ff;
    if (word < sizeof cfi) {
        return cfi[word];
    }
    if (word == 0x30) {
        return 0x02; /* 0x0200 * 256 bytes = 128 KiB a chip */
    }
    if (word >= 0x10a && word < 0x10a + sizeof extended) {
        return extended[word - 0x10a];
    }
    return 0;
}

static uint16_t chip_identity(const struct chip *c, uint32_t word) {
    uint32_t in_block = word & (NOR_BLOCK / 4 - 1);
    if (in_block == 0x02) {
        return c->lock[word / (NOR_BLOCK / 4) % NOR_BLOCKS];
    }
    switch (in_block) {
    case 0x00:
        return 0x0089;
    case 0x01:
        return 0x891c;
    case 0x05:
        return c->read_config;
    default:
        return 0xffff;
    }
}

uint16_t chip_read(struct board *b, int chip, uint32_t word) {
    struct chip *c = &b->chips[chip];
    chip_settle(b, chip);
    if (c->job.kind != BUSY_NO) {
        return c->status;
    }
    switch (c->output) {
    case OUT_STATUS:
        return c->status;
    case OUT_ID:
        return chip_identity(c, word);
    case OUT_CFI:
        return chip_query(word);
    default:
        if (modelled(word)) {
            notes_add(&b->notes, NOTE_LOADS, word * 4, 4);
            stretch_reads(b, word * 4);
        }
        return array_word(b, chip, word);
    }
}

static void refuse(struct board *b, struct chip *c, uint32_t kind, uint32_t word, uint8_t bits) {
    c->status |= bits | SR_READY;
    fault(b, kind, word * 4, bits);
}

static bool in_suspended_block(const struct chip *c, uint32_t word) {
    return c->suspended.kind == BUSY_ERASE &&
           c->suspended.word / (NOR_BLOCK / 4) == word / (NOR_BLOCK / 4);
}

/* Does the block take programs and erases, and is it one the model keeps? */
static bool may_change(struct board *b, struct chip *c, uint32_t word, uint8_t error) {
    if (c->lock[word / (NOR_BLOCK / 4) % NOR_BLOCKS] != LOCK_OPEN) {
        refuse(b, c, FAULT_LOCKED, word, error | SR_LOCKED);
        return false;
    }
    if (!modelled(word)) {
        refuse(b, c, FAULT_BOUNDS, word, error);
        return false;
    }
    if (in_suspended_block(c, word)) {
        refuse(b, c, FAULT_COMMAND, word, error);
        return false;
    }
    return true;
}

static void begin(struct board *b, struct chip *c, enum busy kind, uint64_t time) {
    assert(c->job.kind == BUSY_NO && c->status & SR_READY);
    assert(kind != BUSY_NO && time > 0);
    c->job.kind = kind;
    c->job.start = b->now;
    c->job.end = b->now + time;
    c->job.serial = b->job_serial;
    c->job.fails = c->job.silent = c->job.spoils = false;
    c->status &= (uint8_t)~SR_READY;
}

/* Whether a byte can be programmed over any other: all of it is cleared, or none. */
static bool asks_nothing(uint8_t byte) {
    return byte == 0 || byte == 0xff;
}

static void check_bits(struct board *b, int chip, const struct job *j) {
    for (uint32_t i = 0; i < j->count; i++) {
        if (!j->given[i]) {
            continue;
        }
        uint16_t old = array_word(b, chip, j->word + i), data = j->data[i];
        if (!asks_nothing((uint8_t)data) || !asks_nothing((uint8_t)(data >> 8))) {
            note_cells(b, j->word + i, 1);
        }
        for (int byte = 0; byte < 2; byte++) { /* a byte of 0xff asks for no change */
            uint8_t o = (uint8_t)(old >> 8 * byte), d = (uint8_t)(data >> 8 * byte);
            if (d != 0xff && (d & ~o)) {
                fault(b, FAULT_PROGRAM_SET_BIT, (j->word + i) * 4 + (uint32_t)chip * 2,
                      (uint32_t)old << 16 | data);
                return;
            }
        }
    }
}

static void chip_resume_or_ignore(struct board *b, struct chip *c) {
    if (c->suspended.kind == BUSY_NO) {
        return;
    }
    c->job = c->suspended;
    c->suspended.kind = BUSY_NO;
    c->job.start = b->now - (c->job.end - c->job.start - c->job.left);
    c->job.end = b->now + c->job.left;
    c->status &= (uint8_t)~(SR_READY | SR_ERASE_SUSPENDED | SR_PROGRAM_SUSPENDED);
    c->output = OUT_STATUS;
}

static void chip_command(struct board *b, struct chip *c, uint32_t word, uint16_t value) {
    bool suspended = c->suspended.kind != BUSY_NO;
    c->block = word / (NOR_BLOCK / 4);
    switch (value & 0xff) {
    case 0xff:
        c->output = OUT_ARRAY;
        break;
    case 0x70:
        c->output = OUT_STATUS;
        break;
    case 0x90:
        c->output = OUT_ID;
        break;
    case 0x98:
        c->output = OUT_CFI;
        break;
    case 0x50:
        c->status &= SR_READY | SR_ERASE_SUSPENDED | SR_PROGRAM_SUSPENDED;
        break;
    case 0xb0:
        break;
    case 0xd0:
        chip_resume_or_ignore(b, c);
        break;
    case 0x10:
    case 0x40:
    case 0xe8: /* while a program is suspended no other can begin */
        if (suspended && c->suspended.kind != BUSY_ERASE) {
            refuse(b, c, FAULT_COMMAND, word, SR_SEQUENCE_ERROR);
        } else {
            c->step = (value & 0xff) == 0xe8 ? STEP_COUNT : STEP_WORD;
        }
        c->output = OUT_STATUS;
        break;
    case 0x60:
        c->step = STEP_LOCK;
        c->output = OUT_STATUS;
        break;
    case 0x20:
        if (suspended) {
            refuse(b, c, FAULT_COMMAND, word, SR_SEQUENCE_ERROR);
        } else {
            c->step = STEP_ERASE;
        }
        c->output = OUT_STATUS;
        break;
    case 0xbc:
        c->step = STEP_BLANK;
        c->output = OUT_STATUS;
        break;
    case 0xc0:
        c->step = STEP_OTP;
        c->output = OUT_STATUS;
        break;
    default:
        fault(b, FAULT_COMMAND, word * 4, value);
        break; /* no such command: no effect */
    }
}

static void chip_suspend(struct board *b, int chip) {
    struct chip *c = &b->chips[chip];
    if (c->job.kind == BUSY_BLANK || c->suspended.kind != BUSY_NO) {
        return;
    }
    assert(c->job.kind != BUSY_NO && c->job.end > b->now);
    c->suspended = c->job;
    c->suspended.left = c->job.end - b->now + T_SUSPEND;
    c->job.kind = BUSY_NO;
    c->status |=
        SR_READY | (c->suspended.kind == BUSY_ERASE ? SR_ERASE_SUSPENDED : SR_PROGRAM_SUSPENDED);
    c->output = OUT_STATUS;
}

static void chip_lock(struct board *b, struct chip *c, uint32_t word, uint16_t value) {
    uint8_t *lock = &c->lock[word / (NOR_BLOCK / 4) % NOR_BLOCKS];
    switch (value & 0xff) {
    case 0x01:
        if (*lock == LOCK_OPEN) {
            *lock = LOCK_LOCKED;
        }
        break;
    case 0xd0:
        if (*lock & LOCK_DOWN) { /* WP# is low on this board: locked down until the next power-up */
            fault(b, FAULT_LOCKED, word * 4, value);
        } else {
            *lock = LOCK_OPEN;
        }
        break;
    case 0x2f:
        *lock = LOCK_DOWN | LOCK_LOCKED;
        break;
    case 0x03:
        c->read_config = (uint16_t)word;
        c->output = OUT_ARRAY;
        break;
    default:
        refuse(b, c, FAULT_COMMAND, word, SR_SEQUENCE_ERROR);
        break;
    }
}

/* The data word of the buffer command: the first one says where the buffer starts. */
static void chip_buffer_word(struct chip *c, uint32_t word, uint16_t value) {
    struct job *j = &c->job;
    assert(c->todo > 0 && c->todo <= j->count);
    assert(j->count <= NOR_BUFFER_WORDS);
    if (!c->sized) {
        j->word = word;
        c->sized = true;
    }
    if (word - j->word < j->count) {
        j->data[word - j->word] = value;
        j->given[word - j->word] = 1;
    } else {
        c->block = UINT32_MAX; /* outside the announced range: the confirm will be refused */
    }
    if (--c->todo == 0) {
        c->step = STEP_CONFIRM;
    }
}

static bool buffer_is_sound(const struct chip *c) {
    const struct job *j = &c->job;
    uint32_t last = j->word + j->count - 1;
    return c->block != UINT32_MAX && j->word / (NOR_BLOCK / 4) == c->block &&
           j->word / NOR_BUFFER_WORDS == last / NOR_BUFFER_WORDS;
}

/* Would this write make the chip begin to change its cells? The power may be cut just before. */
bool chip_begins(const struct chip *c, uint32_t word, uint16_t value) {
    if (c->job.kind != BUSY_NO) {
        return false;
    }
    if (c->step == STEP_CONFIRM) {
        word = c->job.word; /* a buffer goes to where it was filled for */
    }
    bool open = c->lock[word / (NOR_BLOCK / 4) % NOR_BLOCKS] == LOCK_OPEN && modelled(word) &&
                !in_suspended_block(c, word);
    switch (c->step) {
    case STEP_WORD:
        return open;
    case STEP_ERASE:
        return (value & 0xff) == 0xd0 && open;
    case STEP_CONFIRM:
        return (value & 0xff) == 0xd0 && buffer_is_sound(c) && open;
    default:
        return false;
    }
}

void chip_write(struct board *b, int chip, uint32_t word, uint16_t value) {
    struct chip *c = &b->chips[chip];
    enum step step = c->step;
    chip_settle(b, chip);
    if (c->job.kind != BUSY_NO) {
        if ((value & 0xff) == 0xb0) {
            chip_suspend(b, chip);
        } else if ((value & 0xff) != 0x70) {
            fault(b, FAULT_COMMAND, word * 4, value);
        }
        return;
    }
    c->step = STEP_READY;
    switch (step) {
    case STEP_READY:
        chip_command(b, c, word, value);
        break;
    case STEP_LOCK:
        chip_lock(b, c, word, value);
        break;
    case STEP_ERASE:
        if ((value & 0xff) != 0xd0) {
            refuse(b, c, FAULT_COMMAND, word, SR_SEQUENCE_ERROR);
        } else if (may_change(b, c, word, SR_ERASE_ERROR)) {
            c->job.word = word & ~(NOR_BLOCK / 4 - 1);
            c->job.count = NOR_BLOCK / 4;
            begin(b, c, BUSY_ERASE, T_ERASE);
        }
        break;
    case STEP_BLANK:
        if ((value & 0xff) != 0xd0 || !modelled(word)) {
            refuse(b, c, FAULT_COMMAND, word, SR_SEQUENCE_ERROR);
        } else {
            c->job.word = word & ~(NOR_BLOCK / 4 - 1);
            c->job.count = NOR_BLOCK / 4;
            begin(b, c, BUSY_BLANK, T_BLANK);
        }
        break;
    case STEP_OTP:
        refuse(b, c, FAULT_COMMAND, word, SR_PROGRAM_ERROR | SR_LOCKED);
        break;
    case STEP_WORD:
        if (may_change(b, c, word, SR_PROGRAM_ERROR)) {
            c->job.word = word;
            c->job.count = 1;
            c->job.data[0] = value;
            c->job.given[0] = 1;
            check_bits(b, chip, &c->job);
            begin(b, c, BUSY_WORD, T_WORD);
        }
        break;
    case STEP_COUNT:
        if (value >= NOR_BUFFER_WORDS) {
            refuse(b, c, FAULT_COMMAND, word, SR_SEQUENCE_ERROR);
            break;
        }
        c->job.count = c->todo = (uint32_t)value + 1;
        c->sized = false;
        memset(c->job.given, 0, sizeof c->job.given);
        c->step = STEP_DATA;
        break;
    case STEP_DATA:
        c->step = STEP_DATA;
        chip_buffer_word(c, word, value);
        break;
    case STEP_CONFIRM:
        if ((value & 0xff) != 0xd0 || !buffer_is_sound(c)) {
            refuse(b, c, FAULT_COMMAND, word, SR_SEQUENCE_ERROR);
        } else if (may_change(b, c, c->job.word, SR_PROGRAM_ERROR)) {
            check_bits(b, chip, &c->job);
            begin(b, c, BUSY_BUFFER, buffer_time(c->job.count));
        }
        break;
    }
}

/* Blocks power up locked. */
void chip_reset(struct chip *c) {
    memset(c, 0, sizeof *c);
    c->status = SR_READY;
    c->read_config = 0xbfcf;
    memset(c->lock, LOCK_LOCKED, sizeof c->lock);
}

void chip_lose_power(struct board *b, int chip) {
    struct chip *c = &b->chips[chip];
    if (c->job.kind != BUSY_NO) {
        tear(b, chip, &c->job);
    }
    if (c->suspended.kind != BUSY_NO) {
        struct job *j = &c->suspended;
        uint64_t total = j->end - j->start;
        j->start = b->now - (total - sooner(total, j->left));
        j->end = j->start + total;
        tear(b, chip, j);
    }
}
