/* See devices.h. Sources: Micron StrataFlash P30-65nm data sheet (256 Mb to 512 Mb, rev. D) for the
 * NOR; Arm DDI 0183 (PL011), DDI 0271 (SP804), DUI 0448 (motherboard registers), IHI 0048 (GIC). */
#include "devices.h"

#include <stdlib.h>
#include <string.h>

#define ACCESS_NS 50u
#define NEVER UINT64_MAX
#define SRAM_BASE 0x48000000u
#define SRAM_SIZE (2u * 1024u * 1024u)
#define PAGE 4096u
#define FAULTS_KEPT 64u
#define SYS_CFGCTRL_REBOOT 0xc0900000u /* start, write, function 9, motherboard */

/* ---------------------------------------------------------------- NOR ---- */

enum {
    SR_READY = 0x80,
    SR_ERASE_SUSPENDED = 0x40,
    SR_ERASE_ERROR = 0x20,
    SR_PROGRAM_ERROR = 0x10,
    SR_PROGRAM_SUSPENDED = 0x04,
    SR_LOCKED = 0x02,
    SR_SEQUENCE_ERROR = SR_ERASE_ERROR | SR_PROGRAM_ERROR
};

enum output { OUT_ARRAY, OUT_STATUS, OUT_ID, OUT_CFI };

enum step {
    STEP_READY,
    STEP_ERASE,
    STEP_WORD,
    STEP_COUNT,
    STEP_DATA,
    STEP_CONFIRM,
    STEP_LOCK,
    STEP_BLANK,
    STEP_OTP
};

enum busy { BUSY_NO, BUSY_WORD, BUSY_BUFFER, BUSY_ERASE, BUSY_BLANK };

enum lock { LOCK_OPEN = 0, LOCK_LOCKED = 1, LOCK_DOWN = 2 };

/* Typical times, table "Program and Erase Characteristics" of the data sheet. */
#define T_WORD 270000u
#define T_ERASE 500000000u
#define T_BLANK 3200000u
#define T_SUSPEND 25000u

struct job { /* what a chip's write state machine is doing, or has suspended */
    enum busy kind;
    uint32_t word;  /* chip word address of the first word */
    uint32_t count; /* words */
    uint64_t start, end, left;
    uint32_t serial;
    uint16_t data[NOR_BUFFER_WORDS];
    uint8_t given[NOR_BUFFER_WORDS];
};

struct chip {
    enum output output;
    enum step step;
    uint8_t status;
    uint8_t lock[NOR_BLOCKS];
    uint16_t read_config;
    uint32_t block; /* of the command under way, chip block number */
    uint32_t todo;
    bool sized;
    struct job job, suspended;
};

/* --------------------------------------------------------------- UART ---- */

#define UART_FIFO 16u

struct byte_queue {
    uint8_t *data;
    uint64_t *time;
    size_t head, count, capacity;
};

struct uart {
    uint32_t ibrd, fbrd, lcr, cr, ifls, imsc, errors;
    uint64_t byte_ns;
    uint8_t fifo[UART_FIFO];
    unsigned fifo_head, fifo_count;
    uint64_t last_rx; /* when the newest byte came into the FIFO, or one was read */
    struct byte_queue rx, tx;
    uint64_t tx_done, rx_done;
    uint64_t watched, idle; /* times at which the host wants to look */
    int watch;
    size_t overruns;
    bool overrun;
};

struct timer {
    uint32_t load, control;
    uint64_t start; /* when it began to count down from `from` */
    uint32_t from;
    bool raw;
};

struct gic {
    uint32_t cpu_control, priority_mask, dist_control;
    uint32_t enable[4];
};

enum { REG_CPSR = 3, REG_LR = 10, REG_PC = 11, REG_SP = 12, REG_D0 = 14, REG_R0 = 66 };

#define REGISTERS 48u /* R0 to R12, SP, LR, CPSR, D0 to D31 */

struct hit {      /* of an instruction that accesses what is watched */
    bool pending; /* it is not to be executed, and nothing behind it, until the emulator stops */
    unsigned watch;
    uint32_t address, pc;
    uint64_t registers[REGISTERS];
};

struct board {
    struct unicorn u;
    uint8_t *nor, *sram;
    struct chip chips[NOR_CHIPS];
    bool hidden; /* the array alias at 0 is taken away because a chip does not answer with its array
                  */
    uint32_t dirty_low, dirty_high;
    struct uart uarts[2];
    struct timer timers[2];
    struct gic gic;
    uint64_t now, until, end, blocks;
    uint32_t pc, block_pc;
    bool powered, waiting, stopping;
    bool executed[SRAM_SIZE / PAGE]; /* since power-on */
    int reason, stuck; /* stuck: the reason for which nothing runs until power goes off and on */
    struct fault faults[FAULTS_KEPT];
    size_t fault_count;
    struct op *ops;
    size_t op_count, op_capacity;
    uint8_t *op_data;
    size_t op_data_size, op_data_capacity;
    uint64_t cut_before;
    uint8_t *code_sizes;
    uint32_t job_serial;
    struct watch watches[WATCHES];
    size_t watch_count;
    uint32_t passed; /* address of an instruction that may access what is watched */
    struct hit hit;
};

static void fault(struct board *b, uint32_t kind, uint32_t address, uint32_t detail) {
    if (b->fault_count < FAULTS_KEPT) {
        b->faults[b->fault_count] = (struct fault){kind, b->block_pc, address, detail, b->now};
    }
    b->fault_count++;
}

/* Stop at the next block, for a reason that lasts until power goes off and on. */
static void stop(struct board *b, int reason) {
    b->stuck = b->reason = reason;
    b->end = 0;
}

/* The firmware cannot go on. */
static void fatal(struct board *b, uint32_t kind, uint32_t address, uint32_t detail) {
    fault(b, kind, address, detail);
    stop(b, STOP_FAULT);
}

static uint8_t *cell(struct board *b, int chip, uint32_t word) {
    return b->nor + (size_t)word * 4 + (size_t)chip * 2;
}

static uint16_t get16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

static void put16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
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
    if (j->kind == BUSY_ERASE) {
        for (uint32_t i = 0; i < j->count; i++) {
            put16(cell(b, chip, j->word + i), 0xffff);
        }
    } else if (j->kind == BUSY_WORD || j->kind == BUSY_BUFFER) {
        for (uint32_t i = 0; i < j->count; i++) {
            if (j->given[i]) {
                program_cell(b, chip, j->word + i, j->data[i]);
            }
        }
    } else if (j->kind == BUSY_BLANK) {
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

/* Power was lost in the middle: words before `done` are programmed, one has some of its bits, the
 * rest none; an erase has moved a share of the bits to one. */
static void tear(struct board *b, int chip, struct job *j) {
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

static void chip_settle(struct board *b, int chip) {
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

static uint16_t chip_read(struct board *b, int chip, uint32_t word) {
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
    c->job.kind = kind;
    c->job.start = b->now;
    c->job.end = b->now + time;
    c->job.serial = b->job_serial;
    c->status &= (uint8_t)~SR_READY;
}

static void check_bits(struct board *b, int chip, const struct job *j) {
    for (uint32_t i = 0; i < j->count; i++) {
        if (!j->given[i]) {
            continue;
        }
        uint16_t old = array_word(b, chip, j->word + i), data = j->data[i];
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
static bool begins(const struct chip *c, uint32_t word, uint16_t value) {
    if (c->job.kind != BUSY_NO) {
        return false;
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

static void chip_write(struct board *b, int chip, uint32_t word, uint16_t value) {
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

static void *grown(void *memory, size_t *capacity, size_t wanted, size_t size) {
    if (wanted <= *capacity) {
        return memory;
    }
    *capacity = wanted * 2;
    memory = realloc(memory, *capacity * size);
    if (!memory) {
        abort();
    }
    return memory;
}

static void record_op(struct board *b, uint32_t lanes) {
    const struct job *j = &b->chips[lanes & 1 ? 0 : 1].job;
    b->ops = grown(b->ops, &b->op_capacity, b->op_count + 1, sizeof *b->ops);
    uint32_t kind = j->kind == BUSY_ERASE ? OP_ERASE : j->kind == BUSY_WORD ? OP_WORD : OP_BUFFER;
    b->ops[b->op_count++] =
        (struct op){kind, lanes, j->word * 4, j->count * 4, j->start, j->end, b->op_data_size};
    if (kind == OP_ERASE) {
        return;
    }
    size_t size = b->op_data_size + j->count * 4;
    b->op_data = grown(b->op_data, &b->op_data_capacity, size, 1);
    uint8_t *out = b->op_data + b->op_data_size;
    memset(out, 0xff, j->count * 4);
    for (int chip = 0; chip < NOR_CHIPS; chip++) {
        const struct job *part = &b->chips[chip].job;
        for (uint32_t i = 0; lanes & 1u << chip && i < part->count; i++) {
            if (part->given[i]) {
                put16(out + i * 4 + chip * 2, part->data[i]);
            }
        }
    }
    b->op_data_size = size;
}

/* Translated code of this range is no longer what memory holds. */
static void forget_code(struct board *b, uint64_t low, uint64_t high) {
    enum { REMOVE_CACHE = 9, ARGS_2 = 2 << 26, WRITE = 1 << 30 }; /* uc_ctl_remove_cache() */
    if (b->u.uc) {
        b->u.ctl(b->u.uc, REMOVE_CACHE | ARGS_2 | WRITE, low, high);
    }
}

static void forget_sram_code(struct board *b) {
    enum { FLUSH_TLB = 11, WRITE = 1 << 30 }; /* uc_ctl_flush_tlb() */
    forget_code(b, SRAM_BASE, SRAM_BASE + SRAM_SIZE);
    memset(b->executed, 0, sizeof b->executed);
    if (b->u.uc) {
        b->u.ctl(b->u.uc, FLUSH_TLB | WRITE);
    }
}

/* Show or hide the array alias at 0, and drop translated code of what was changed. */
static void nor_view(struct board *b) {
    bool hide = false;
    for (int i = 0; i < NOR_CHIPS; i++) {
        hide |= b->chips[i].output != OUT_ARRAY || b->chips[i].job.kind != BUSY_NO;
    }
    if (hide == b->hidden) {
        return;
    }
    b->hidden = hide;
    if (!b->u.uc) {
        return;
    }
    if (hide && b->block_pc < NOR_TOTAL) {
        fatal(b, FAULT_BUSY_FETCH, b->block_pc, 0);
        return;
    }
    enum { NONE = 0, READ_EXEC = 1 | 4 };
    b->u.mem_protect(b->u.uc, 0, NOR_MODELLED, hide ? NONE : READ_EXEC);
    if (!hide && b->dirty_high > b->dirty_low) {
        forget_code(b, b->dirty_low, b->dirty_high);
        b->dirty_low = UINT32_MAX;
        b->dirty_high = 0;
    }
}

static uint32_t nor_read(struct board *b, uint32_t offset, unsigned size) {
    uint32_t word = offset / 4;
    uint32_t value = chip_read(b, 0, word) | (uint32_t)chip_read(b, 1, word) << 16;
    value >>= 8 * (offset & 3);
    return size == 4 ? value : value & ((1u << 8 * size) - 1);
}

static void nor_write(struct board *b, uint32_t offset, unsigned size, uint32_t value) {
    if (size == 1 || (offset & (size - 1))) {
        fault(b, FAULT_COMMAND, offset, value);
        return;
    }
    uint32_t word = offset / 4, lanes = size == 4 ? 3 : offset & 2 ? 2 : 1;
    if (size == 2 && lanes == 2) {
        value <<= 16;
    }
    uint32_t starting = 0;
    for (int i = 0; i < NOR_CHIPS; i++) {
        chip_settle(b, i);
        uint16_t half = (uint16_t)(value >> 16 * i);
        if (lanes & 1u << i && begins(&b->chips[i], word, half)) {
            starting |= 1u << i;
        }
    }
    if (starting && b->op_count == b->cut_before) {
        stop(b, STOP_CUT);
        return;
    }
    b->job_serial = (uint32_t)b->op_count;
    for (int i = 0; i < NOR_CHIPS; i++) {
        if (lanes & 1u << i) {
            chip_write(b, i, word, (uint16_t)(value >> 16 * i));
        }
    }
    if (starting) {
        record_op(b, starting);
    }
    nor_view(b);
}

/* -------------------------------------------------------------- UART ---- */

static void queue_put(struct byte_queue *q, uint8_t byte, uint64_t time) {
    if (q->head && q->head + q->count == q->capacity) {
        memmove(q->data, q->data + q->head, q->count);
        memmove(q->time, q->time + q->head, q->count * sizeof *q->time);
        q->head = 0;
    }
    if (q->count == q->capacity) {
        q->capacity = q->capacity ? q->capacity * 2 : 1024;
        q->data = realloc(q->data, q->capacity);
        q->time = realloc(q->time, q->capacity * sizeof *q->time);
        if (!q->data || !q->time) {
            abort();
        }
    }
    q->data[q->head + q->count] = byte;
    q->time[q->head + q->count] = time;
    q->count++;
}

static void queue_drop(struct byte_queue *q, size_t n) {
    q->head += n;
    q->count -= n;
    if (!q->count) {
        q->head = 0;
    }
}

static uint64_t later(uint64_t a, uint64_t c) {
    return a > c ? a : c;
}
static uint64_t sooner(uint64_t a, uint64_t c) {
    return a < c ? a : c;
}

static void uart_rate(struct uart *u) {
    uint64_t divisor = (uint64_t)u->ibrd * 64 + u->fbrd; /* in 1/64 */
    unsigned bits = 1 + 5 + (u->lcr >> 5 & 3) + (u->lcr >> 1 & 1) + 1 + (u->lcr >> 3 & 1);
    /* one bit is 16 * divisor / 64 cycles of 24 MHz */
    u->byte_ns = bits * divisor * 16 * 1000 / (64 * 24);
}

static bool uart_receives(const struct uart *u) {
    return (u->cr & 0x201) == 0x201;
}

/* Bytes whose stop bit has passed come into the FIFO; when it is full they are lost, as on the
 * chip. */
static void uart_settle(struct board *b, struct uart *u) {
    size_t taken = 0;
    while (taken < u->rx.count && u->rx.time[u->rx.head + taken] <= b->now) {
        uint8_t byte = u->rx.data[u->rx.head + taken];
        uint64_t at = u->rx.time[u->rx.head + taken++];
        if (!uart_receives(u)) {
            continue;
        }
        unsigned depth = u->lcr & 0x10 ? UART_FIFO : 1;
        if (u->fifo_count >= depth) {
            u->overrun = true;
            u->overruns++;
            continue;
        }
        u->fifo[(u->fifo_head + u->fifo_count++) % UART_FIFO] = byte;
        u->last_rx = at;
    }
    queue_drop(&u->rx, taken);
}

static unsigned uart_rx_trigger(const struct uart *u) {
    static const uint8_t levels[8] = {2, 4, 8, 12, 14, 2, 2, 2};
    return u->lcr & 0x10 ? levels[u->ifls >> 3 & 7] : 1;
}

static unsigned uart_tx_level(const struct board *b, const struct uart *u) {
    if (!u->byte_ns || u->tx_done <= b->now) {
        return 0;
    }
    return (unsigned)((u->tx_done - b->now + u->byte_ns - 1) / u->byte_ns);
}

static uint64_t uart_timeout(const struct uart *u) {
    return u->byte_ns * 32 / 10;
}

enum { INT_RX = 0x10, INT_TX = 0x20, INT_RT = 0x40, INT_OE = 0x400 };

static uint32_t uart_raw(struct board *b, struct uart *u) {
    uint32_t raw = 0;
    uart_settle(b, u);
    if (u->fifo_count >= uart_rx_trigger(u)) {
        raw |= INT_RX;
    }
    if (u->fifo_count && b->now >= u->last_rx + uart_timeout(u)) {
        raw |= INT_RT;
    }
    if (uart_tx_level(b, u) <= UART_FIFO / 8) {
        raw |= INT_TX;
    }
    if (u->overrun) {
        raw |= INT_OE;
    }
    return raw;
}

/* When the interrupt line of this UART goes up if nothing is read, NEVER if not from what is known.
 */
static uint64_t uart_next(struct board *b, struct uart *u) {
    if (uart_raw(b, u) & u->imsc) {
        return b->now;
    }
    uint64_t next = NEVER;
    if (uart_receives(u) && u->imsc & (INT_RX | INT_RT)) {
        unsigned have = u->fifo_count;
        uint64_t last = u->last_rx;
        for (size_t i = 0;; i++) {
            uint64_t arrival = i < u->rx.count ? u->rx.time[u->rx.head + i] : NEVER;
            if (have && u->imsc & INT_RT && last + uart_timeout(u) < arrival) {
                return sooner(next, last + uart_timeout(u));
            }
            if (arrival == NEVER) {
                break;
            }
            last = arrival;
            if (++have >= uart_rx_trigger(u) && u->imsc & INT_RX) {
                return sooner(next, arrival);
            }
        }
    }
    if (u->imsc & INT_TX && u->byte_ns) {
        next = sooner(next, later(b->now, u->tx_done - sooner(u->tx_done, u->byte_ns * 2)));
    }
    return next;
}

static void look_again(struct board *b) {
    if (b->stuck) {
        return;
    }
    b->end = b->until;
    for (int i = 0; i < 2; i++) {
        b->end = sooner(b->end, sooner(b->uarts[i].watched, b->uarts[i].idle));
    }
}

static void uart_send(struct board *b, struct uart *u, uint8_t byte) {
    if ((u->cr & 0x101) != 0x101 || !u->byte_ns || uart_tx_level(b, u) > UART_FIFO) {
        fault(b, FAULT_UART_LOST, (uint32_t)(u - b->uarts), byte);
        return;
    }
    u->tx_done = later(u->tx_done, b->now) + u->byte_ns;
    queue_put(&u->tx, byte, u->tx_done);
    u->idle = u->tx_done;
    if (u->watch == byte && u->watched == NEVER) {
        u->watched = u->tx_done;
    }
    look_again(b);
}

static uint32_t uart_read(struct board *b, struct uart *u, uint32_t reg) {
    static const uint8_t id[8] = {0x11, 0x10, 0x14, 0x00, 0x0d, 0xf0, 0x05, 0xb1};
    uart_settle(b, u);
    switch (reg) {
    case 0x00: {
        if (!u->fifo_count) {
            return 0;
        }
        uint32_t value = u->fifo[u->fifo_head];
        if (u->overrun) {
            value |= 0x800;
            u->overrun = false;
        }
        u->fifo_head = (u->fifo_head + 1) % UART_FIFO;
        u->fifo_count--;
        return value;
    }
    case 0x04:
        return u->errors;
    case 0x18: {
        unsigned level = uart_tx_level(b, u);
        return (u->fifo_count ? 0 : 0x10u) | (u->fifo_count >= UART_FIFO ? 0x40u : 0) |
               (level > UART_FIFO ? 0x20u : 0) | (level <= 1 ? 0x80u : 0) | (level ? 0x08u : 0);
    }
    case 0x24:
        return u->ibrd;
    case 0x28:
        return u->fbrd;
    case 0x2c:
        return u->lcr;
    case 0x30:
        return u->cr;
    case 0x34:
        return u->ifls;
    case 0x38:
        return u->imsc;
    case 0x3c:
        return uart_raw(b, u);
    case 0x40:
        return uart_raw(b, u) & u->imsc;
    case 0x48:
        return 0;
    default:
        if (reg >= 0xfe0) {
            return id[(reg - 0xfe0) / 4];
        }
        fault(b, FAULT_BOUNDS, reg, 0);
        return 0;
    }
}

static void uart_write(struct board *b, struct uart *u, uint32_t reg, uint32_t value) {
    uart_settle(b, u);
    switch (reg) {
    case 0x00:
        uart_send(b, u, (uint8_t)value);
        break;
    case 0x04:
        u->errors = 0;
        u->overrun = false;
        break;
    case 0x24:
        u->ibrd = value & 0xffff;
        break;
    case 0x28:
        u->fbrd = value & 0x3f;
        break;
    case 0x2c: /* the divisor is taken over when LCR_H is written */
        u->lcr = value & 0xff;
        uart_rate(u);
        break;
    case 0x30:
        u->cr = value & 0xffff;
        break;
    case 0x34:
        u->ifls = value & 0x3f;
        break;
    case 0x38:
        u->imsc = value & 0x7ff;
        break;
    case 0x44:
        if (value & INT_OE) {
            u->overrun = false;
        }
        break;
    case 0x48:
        break;
    default:
        fault(b, FAULT_BOUNDS, reg, value);
        break;
    }
}

/* ------------------------------------------------------------- timers ---- */

enum { TIMER_ONE_SHOT = 1, TIMER_32 = 2, TIMER_INT = 0x20, TIMER_PERIODIC = 0x40, TIMER_ON = 0x80 };

static uint64_t tick_ns(const struct timer *t) {
    static const uint16_t prescale[4] = {1, 16, 256, 256};
    return 1000u * prescale[t->control >> 2 & 3]; /* 1 MHz */
}

static uint64_t timer_expiry(const struct timer *t) {
    return t->control & TIMER_ON ? t->start + (uint64_t)t->from * tick_ns(t) : NEVER;
}

static void timer_settle(struct board *b, struct timer *t) {
    while (timer_expiry(t) <= b->now) {
        uint64_t at = timer_expiry(t);
        t->raw = true;
        if (t->control & TIMER_ONE_SHOT) {
            t->control &= ~(uint32_t)TIMER_ON;
            t->from = 0;
        } else {
            t->from = t->control & TIMER_PERIODIC ? t->load
                      : t->control & TIMER_32     ? 0xffffffffu
                                                  : 0xffffu;
            if (!t->from) {
                t->from = 1;
            }
            uint64_t period = t->from * tick_ns(t);
            t->start = at + (b->now - at) / period * period; /* skip whole periods at once */
        }
    }
}

static uint64_t timer_next(struct board *b, struct timer *t) {
    timer_settle(b, t);
    if (!(t->control & TIMER_INT)) {
        return NEVER;
    }
    return t->raw ? b->now : timer_expiry(t);
}

static void timer_begin(struct board *b, struct timer *t) {
    t->from = t->control & TIMER_32 ? t->load : t->load & 0xffff;
    t->start = b->now;
}

static uint32_t timer_read(struct board *b, struct timer *t, uint32_t reg) {
    timer_settle(b, t);
    switch (reg) {
    case 0x00:
    case 0x18:
        return t->load;
    case 0x04:
        return t->control & TIMER_ON ? t->from - (uint32_t)((b->now - t->start) / tick_ns(t))
                                     : t->from;
    case 0x08:
        return t->control;
    case 0x10:
        return t->raw;
    case 0x14:
        return t->raw && t->control & TIMER_INT;
    default:
        fault(b, FAULT_BOUNDS, reg, 0);
        return 0;
    }
}

static void timer_write(struct board *b, struct timer *t, uint32_t reg, uint32_t value) {
    timer_settle(b, t);
    switch (reg) {
    case 0x00:
        t->load = value;
        timer_begin(b, t);
        break;
    case 0x08: {
        bool was_on = t->control & TIMER_ON;
        t->control = value & 0xef;
        if (!was_on && value & TIMER_ON) {
            timer_begin(b, t);
        }
        break;
    }
    case 0x0c:
        t->raw = false;
        break;
    case 0x18:
        t->load = value;
        break;
    default:
        fault(b, FAULT_BOUNDS, reg, value);
        break;
    }
}

/* ---------------------------------------------------------------- GIC ---- */

static bool gic_passes(const struct board *b, unsigned irq) {
    const struct gic *g = &b->gic;
    return g->dist_control & 1 && g->cpu_control & 1 && g->priority_mask > 0 &&
           g->enable[irq / 32] & 1u << irq % 32;
}

static uint64_t next_wake(struct board *b) {
    uint64_t next = NEVER;
    if (gic_passes(b, 34)) {
        for (int i = 0; i < 2; i++) {
            next = sooner(next, timer_next(b, &b->timers[i]));
        }
    }
    for (int i = 0; i < 2; i++) {
        if (gic_passes(b, 37 + (unsigned)i)) {
            next = sooner(next, uart_next(b, &b->uarts[i]));
        }
    }
    return next;
}

static uint32_t private_read(struct board *b, uint32_t offset) {
    const struct gic *g = &b->gic;
    if (offset == 0x100) {
        return g->cpu_control;
    }
    if (offset == 0x104) {
        return g->priority_mask;
    }
    if (offset == 0x1000) {
        return g->dist_control;
    }
    if (offset == 0x1004) {
        return 0x62; /* 96 lines, two CPU interfaces: as the A9 of this board */
    }
    if (offset >= 0x1100 && offset < 0x1110) {
        return g->enable[(offset - 0x1100) / 4];
    }
    if (offset >= 0x1180 && offset < 0x1190) {
        return g->enable[(offset - 0x1180) / 4];
    }
    fault(b, FAULT_BOUNDS, 0x1e000000u + offset, 0);
    return 0;
}

static void private_write(struct board *b, uint32_t offset, uint32_t value) {
    struct gic *g = &b->gic;
    if (offset == 0x100) {
        g->cpu_control = value;
    } else if (offset == 0x104) {
        g->priority_mask = value & 0xff;
    } else if (offset == 0x1000) {
        g->dist_control = value;
    } else if (offset >= 0x1100 && offset < 0x1110) {
        g->enable[(offset - 0x1100) / 4] |= value;
    } else if (offset >= 0x1180 && offset < 0x1190) {
        g->enable[(offset - 0x1180) / 4] &= ~value;
    } else if (offset != 0x108 && offset != 0x110 && !(offset >= 0x1080 && offset < 0x2000)) {
        fault(b, FAULT_BOUNDS, 0x1e000000u + offset, value);
    }
}

/* ---------------------------------------------------------------- bus ---- */

/* An access to a device takes time, and takes place unless a watch was to stop the CPU before. */
static bool takes_place(struct board *b) {
    if (b->hit.pending) {
        return false;
    }
    b->now += ACCESS_NS;
    return true;
}

uint64_t board_mmio_nor_read(void *uc, uint64_t offset, unsigned size, void *user) {
    (void)uc;
    struct board *b = user;
    if (!takes_place(b)) {
        return 0;
    }
    return nor_read(b, (uint32_t)offset, size);
}

void board_mmio_nor_write(void *uc, uint64_t offset, unsigned size, uint64_t value, void *user) {
    (void)uc;
    struct board *b = user;
    if (takes_place(b) && !b->stuck) {
        nor_write(b, (uint32_t)offset, size, (uint32_t)value);
    }
}

/* The motherboard's page range: 0x10000000 to 0x10011fff. */
uint64_t board_mmio_motherboard_read(void *uc, uint64_t offset, unsigned size, void *user) {
    (void)uc;
    (void)size;
    struct board *b = user;
    uint32_t reg = offset & 0xfff;
    if (!takes_place(b)) {
        return 0;
    }
    switch (offset >> 12) {
    case 0x00:
        if (reg == 0x5c) {
            return (uint32_t)(b->now * 24 / 1000);
        }
        break;
    case 0x09:
        return uart_read(b, &b->uarts[0], reg);
    case 0x0a:
        return uart_read(b, &b->uarts[1], reg);
    case 0x11:
        if (reg < 0x40) {
            return timer_read(b, &b->timers[reg >> 5], reg & 0x1f);
        }
        break;
    }
    fault(b, FAULT_BOUNDS, 0x10000000u + (uint32_t)offset, 0);
    return 0;
}

void board_mmio_motherboard_write(void *uc, uint64_t offset, unsigned size, uint64_t value,
                                  void *user) {
    (void)uc;
    (void)size;
    struct board *b = user;
    uint32_t reg = offset & 0xfff, word = (uint32_t)value;
    if (!takes_place(b) || b->stuck) {
        return;
    }
    switch (offset >> 12) {
    case 0x00:
        if (reg == 0xa4 && word == SYS_CFGCTRL_REBOOT) {
            stop(b, STOP_RESET);
            return;
        }
        break;
    case 0x09:
        uart_write(b, &b->uarts[0], reg, word);
        return;
    case 0x0a:
        uart_write(b, &b->uarts[1], reg, word);
        return;
    case 0x11:
        if (reg < 0x40) {
            timer_write(b, &b->timers[reg >> 5], reg & 0x1f, word);
            return;
        }
        break;
    }
    fault(b, FAULT_BOUNDS, 0x10000000u + (uint32_t)offset, word);
}

uint64_t board_mmio_private_read(void *uc, uint64_t offset, unsigned size, void *user) {
    (void)uc;
    (void)size;
    struct board *b = user;
    if (!takes_place(b)) {
        return 0;
    }
    return private_read(b, (uint32_t)offset);
}

void board_mmio_private_write(void *uc, uint64_t offset, unsigned size, uint64_t value,
                              void *user) {
    (void)uc;
    (void)size;
    struct board *b = user;
    if (takes_place(b) && !b->stuck) {
        private_write(b, (uint32_t)offset, (uint32_t)value);
    }
}

/* ---------------------------------------------------------------- CPU ---- */

enum { THUMB = 0x20, CPSR_I_F = 0xc0 };
#define NOWHERE 1u /* where no instruction begins */

/* Remembers how long the block at an address is, in halfwords; the NOR first, then the SRAM. */
static void note_code(struct board *b, uint32_t address, uint32_t size) {
    uint32_t at = address < NOR_MODELLED ? address : address - SRAM_BASE + NOR_MODELLED;
    uint32_t length = size / 2 < 255 ? size / 2 : 255;
    if (at < NOR_MODELLED + SRAM_SIZE && b->code_sizes[at / 2] < length) {
        b->code_sizes[at / 2] = (uint8_t)length;
    }
}

void board_on_block(void *uc, uint64_t address, uint32_t size, void *user) {
    struct board *b = user;
    if (b->now >= b->end) { /* the block is not executed: it will be announced again */
        b->stopping = true;
        b->u.emu_stop(uc);
        return;
    }
    b->block_pc = (uint32_t)address;
    b->blocks++;
    b->now += size;
    if (b->code_sizes) {
        note_code(b, (uint32_t)address, size);
    }
}

/* Before it asks for a page, Unicorn 2.1.4 puts the CPU into the state of the instruction that
 * needs it, also into its IT block, and does not take that back when the block goes on: without
 * this the next block begins inside an IT block. */
static void leave_it_block(struct board *b, void *uc) {
    enum { IT_BITS = 0x0600fc00 };
    uint32_t cpsr = 0;
    b->u.reg_read(uc, REG_CPSR, &cpsr);
    if (cpsr & IT_BITS) {
        cpsr &= ~(uint32_t)IT_BITS;
        b->u.reg_write(uc, REG_CPSR, &cpsr);
    }
}

/* Unicorn takes the long way for each store to a page that may be executed: so a page of SRAM may
 * from the first time on that it is. */
bool board_on_page(void *uc, uint64_t address, int type, struct page *page, void *user) {
    enum { FETCH = 18, READ_WRITE = 3, EXECUTE = 4 };
    struct board *b = user;
    if (type != FETCH) {
        leave_it_block(b, uc);
    }
    uint64_t number = (address - SRAM_BASE) / PAGE;
    page->address = address;
    page->permissions = READ_WRITE | EXECUTE;
    if (number >= SRAM_SIZE / PAGE) {
        return true;
    }
    if (type == FETCH) {
        b->executed[number] = true;
    }
    if (!b->executed[number]) {
        page->permissions = READ_WRITE;
    }
    return true;
}

/* A fetch or a read of the array alias while a chip does not answer with its array. */
bool board_on_protected(void *uc, int type, uint64_t address, int size, int64_t value, void *user) {
    (void)uc;
    (void)size;
    (void)value;
    struct board *b = user;
    enum { WRITE_PROT = 22, FETCH_PROT = 24 };
    if (b->hidden && address < NOR_MODELLED && type != WRITE_PROT && !b->hit.pending) {
        fatal(b, type == FETCH_PROT ? FAULT_BUSY_FETCH : FAULT_BUSY_READ, (uint32_t)address, 0);
    }
    return false;
}

static int register_name(unsigned number) {
    static const int others[] = {REG_SP, REG_LR, REG_CPSR};
    if (number < 13) {
        return REG_R0 + (int)number;
    }
    return number < 16 ? others[number - 13] : REG_D0 + (int)number - 16;
}

/* Accesses of the CPU near to what is watched, before they take place. Unicorn has put the CPU into
 * the state in which it began the instruction, but cannot stop there: the rest of the block may be
 * executed. Until it stops nothing is written, and the state is kept to go back to it. */
void board_on_access(void *uc, int type, uint64_t address, int size, int64_t value, void *user) {
    enum { MEM_WRITE = 17, READ_EXEC = 1 | 4 };
    struct board *b = user;
    struct hit *h = &b->hit;
    const uint32_t kind = type == MEM_WRITE ? WATCH_WRITE : WATCH_READ;
    const uint64_t last = address + (uint64_t)size - 1;
    uint32_t pc = 0;
    (void)value;
    b->u.reg_read(uc, REG_PC, &pc);
    for (unsigned i = 0; i < b->watch_count && !h->pending; i++) {
        const struct watch *w = &b->watches[i];
        if (!(w->kinds & kind) || last < w->first || address > w->last || pc == b->passed) {
            continue;
        }
        *h = (struct hit){.pending = true, .watch = i, .pc = pc};
        h->address = address < w->first ? w->first : (uint32_t)address;
        for (unsigned number = 0; number < REGISTERS; number++) {
            b->u.reg_read(uc, register_name(number), &h->registers[number]);
        }
        b->u.mem_protect(uc, SRAM_BASE, SRAM_SIZE, READ_EXEC);
        b->stopping = true;
        b->end = 0;
        b->u.emu_stop(uc);
    }
    leave_it_block(b, uc);
}

/* The emulator has stopped: as if it had done so before the instruction. */
static int stopped_by_watch(struct board *b) {
    enum { ALL = 7 };
    struct hit *h = &b->hit;
    for (unsigned number = 0; number < REGISTERS; number++) {
        b->u.reg_write(b->u.uc, register_name(number), &h->registers[number]);
    }
    b->u.mem_protect(b->u.uc, SRAM_BASE, SRAM_SIZE, ALL);
    b->pc = h->pc;
    h->pending = b->waiting = false;
    return STOP_WATCH;
}

static int stopped_by_error(struct board *b, int error) {
    if (!b->stuck) {
        b->block_pc = b->pc;
        fatal(b, FAULT_EXCEPTION, b->pc, (uint32_t)error);
    }
    return b->stuck;
}

/* Run until virtual time `until`, or until the host should look (see enum stop_reason). */
int board_run(struct board *b, uint64_t until) {
    if (!b->powered) {
        b->now = later(b->now, until);
        return STOP_TIME;
    }
    if (b->stuck) {
        b->now = later(b->now, until);
        return b->stuck == STOP_FAULT ? STOP_HALTED : b->stuck;
    }
    b->until = until;
    b->reason = STOP_TIME;
    look_again(b);
    while (b->now < b->end) {
        if (b->waiting) {
            uint64_t wake = next_wake(b);
            if (wake > b->end) {
                b->now = b->end;
                break;
            }
            b->now = later(b->now, wake);
            b->waiting = false;
        }
        uint32_t cpsr = 0;
        b->stopping = false;
        b->u.reg_read(b->u.uc, REG_CPSR, &cpsr);
        int error = b->u.emu_start(b->u.uc, b->pc | (cpsr & THUMB ? 1 : 0), UINT32_MAX, 0, 0);
        if (b->hit.pending) {
            return stopped_by_watch(b);
        }
        b->u.reg_read(b->u.uc, REG_PC, &b->pc);
        if (error) {
            return stopped_by_error(b, error);
        }
        b->waiting = !b->stopping;
    }
    if (b->reason != STOP_TIME) {
        return b->reason;
    }
    for (int i = 0; i < 2; i++) {
        struct uart *u = &b->uarts[i];
        if (u->watched <= b->now) {
            u->watched = NEVER;
            b->reason = STOP_OUTPUT;
        }
        if (u->idle <= b->now) {
            u->idle = NEVER;
            b->reason = STOP_OUTPUT;
        }
    }
    return b->reason;
}

/* --------------------------------------------------------------- host ---- */

static void reset_devices(struct board *b) {
    for (int i = 0; i < NOR_CHIPS; i++) {
        struct chip *c = &b->chips[i];
        memset(c, 0, sizeof *c);
        c->status = SR_READY;
        c->read_config = 0xbfcf;
        memset(c->lock, LOCK_LOCKED, sizeof c->lock); /* blocks power up locked */
    }
    for (int i = 0; i < 2; i++) {
        struct uart *u = &b->uarts[i];
        struct byte_queue rx = u->rx, tx = u->tx;
        int watch = u->watch;
        size_t overruns = u->overruns;
        memset(u, 0, sizeof *u);
        u->tx = tx;
        u->rx = rx;
        u->rx.head = u->rx.count = 0;
        while (u->tx.count && u->tx.time[u->tx.head + u->tx.count - 1] > b->now) {
            u->tx.count--; /* what was still in the FIFO is lost */
        }
        u->watch = watch;
        u->overruns = overruns;
        u->cr = 0x300;
        u->ifls = 0x12;
        u->watched = u->idle = NEVER;
        memset(&b->timers[i], 0, sizeof b->timers[i]);
        b->timers[i].control = 0x20;
        b->timers[i].from = 0xffffffffu;
    }
    memset(&b->gic, 0, sizeof b->gic);
}

struct board *board_new(uint8_t *nor, uint8_t *sram) {
    struct board *b = calloc(1, sizeof *b);
    if (!b) {
        return NULL;
    }
    b->nor = nor;
    b->sram = sram;
    b->cut_before = NEVER;
    b->passed = NOWHERE;
    b->dirty_low = UINT32_MAX;
    b->uarts[0].watch = '\n';
    b->uarts[1].watch = 0xc0;
    reset_devices(b);
    return b;
}

void board_free(struct board *b) {
    for (int i = 0; i < 2; i++) {
        free(b->uarts[i].rx.data);
        free(b->uarts[i].rx.time);
        free(b->uarts[i].tx.data);
        free(b->uarts[i].tx.time);
    }
    free(b->ops);
    free(b->op_data);
    free(b);
}

void board_attach(struct board *b, const struct unicorn *unicorn) {
    b->u = *unicorn;
}

void board_power_on(struct board *b, uint32_t pc) {
    reset_devices(b);
    forget_sram_code(b);
    b->powered = true;
    b->waiting = b->stopping = false;
    b->stuck = 0;
    b->pc = pc;
    b->block_pc = UINT32_MAX;
    nor_view(b);
}

void board_power_off(struct board *b) {
    if (!b->powered) {
        return;
    }
    b->powered = false;
    for (int i = 0; i < NOR_CHIPS; i++) {
        if (b->chips[i].job.kind != BUSY_NO) {
            tear(b, i, &b->chips[i].job);
        }
        if (b->chips[i].suspended.kind != BUSY_NO) {
            struct job *j = &b->chips[i].suspended;
            uint64_t total = j->end - j->start;
            j->start = b->now - (total - sooner(total, j->left));
            j->end = j->start + total;
            tear(b, i, j);
        }
    }
    reset_devices(b);
    b->block_pc = UINT32_MAX;
    nor_view(b);
}

uint64_t board_now(const struct board *b) {
    return b->now;
}
uint64_t board_blocks(const struct board *b) {
    return b->blocks;
}

/* Carry out what has come to its end, so that the host sees the cells as they are now. */
void board_settle(struct board *b) {
    for (int i = 0; i < NOR_CHIPS; i++) {
        chip_settle(b, i);
    }
}

void board_elapse(struct board *b, uint64_t ns) {
    b->now += ns;
}

void board_uart_push(struct board *b, int uart, const uint8_t *data, size_t length) {
    struct uart *u = &b->uarts[uart];
    if (!b->powered) {
        return;
    }
    uint64_t byte_ns = u->byte_ns ? u->byte_ns : 86806; /* 115200 8N1 until the firmware says */
    for (size_t i = 0; i < length; i++) {
        u->rx_done = later(u->rx_done, b->now) + byte_ns;
        queue_put(&u->rx, data[i], u->rx_done);
    }
}

size_t board_uart_take(struct board *b, int uart, uint8_t *data, uint64_t *times, size_t capacity) {
    struct byte_queue *q = &b->uarts[uart].tx;
    size_t n = 0;
    while (n < capacity && n < q->count && q->time[q->head + n] <= b->now) {
        data[n] = q->data[q->head + n];
        if (times) {
            times[n] = q->time[q->head + n];
        }
        n++;
    }
    queue_drop(q, n);
    return n;
}

size_t board_uart_overruns(const struct board *b, int uart) {
    return b->uarts[uart].overruns;
}

size_t board_faults(const struct board *b, struct fault *out, size_t capacity) {
    for (size_t i = 0; i < capacity && i < b->fault_count && i < FAULTS_KEPT; i++) {
        out[i] = b->faults[i];
    }
    return b->fault_count;
}

size_t board_ops(const struct board *b, struct op *out, size_t from, size_t capacity) {
    for (size_t i = 0; i < capacity && from + i < b->op_count; i++) {
        out[i] = b->ops[from + i];
    }
    return b->op_count;
}

void board_op_data(const struct board *b, size_t op, uint8_t *out) {
    if (op < b->op_count && b->ops[op].kind != OP_ERASE) {
        memcpy(out, b->op_data + b->ops[op].data, b->ops[op].length);
    }
}

/* Without power: nothing that was is of any more interest, time and counting begin anew. */
void board_forget(struct board *b) {
    b->now = b->blocks = 0;
    b->op_count = b->op_data_size = b->fault_count = 0;
    for (int i = 0; i < 2; i++) {
        b->uarts[i].tx.head = b->uarts[i].tx.count = 0;
        b->uarts[i].overruns = 0;
    }
    reset_devices(b);
}

void board_cut_before(struct board *b, uint64_t op) {
    b->cut_before = op;
}

/* From a hook in the middle of a run: return from board_run() with STOP_BREAK, before the
 * instruction that is about to be executed. */
void board_break(struct board *b) {
    b->stopping = true;
    b->reason = STOP_BREAK;
    b->end = 0;
    b->u.emu_stop(b->u.uc);
}

/* What is watched from now on; the host sees to it that board_on_access() is called for it. */
void board_watch(struct board *b, const struct watch *watches, size_t count) {
    b->watch_count = count < WATCHES ? count : WATCHES;
    if (count) {
        memcpy(b->watches, watches, b->watch_count * sizeof *watches);
    }
}

/* Which watch the last STOP_WATCH was for, and where the access would begin in it. */
unsigned board_watch_hit(const struct board *b, uint32_t *address) {
    *address = b->hit.address;
    return b->hit.watch;
}

/* Execute one instruction, also one that accesses what is watched if it is to be passed; waiting
 * for an interrupt is over at once. Unicorn takes an IT block for one instruction. */
int board_step(struct board *b, bool pass) {
    uint32_t cpsr = 0;
    if (!b->powered || b->stuck) {
        return b->stuck;
    }
    b->waiting = b->stopping = false;
    b->reason = STOP_TIME;
    b->until = b->end = NEVER;
    b->passed = pass ? b->pc : NOWHERE;
    b->u.reg_read(b->u.uc, REG_CPSR, &cpsr);
    int error = b->u.emu_start(b->u.uc, b->pc | (cpsr & THUMB ? 1 : 0), UINT32_MAX, 0, 1);
    b->passed = NOWHERE;
    if (b->hit.pending) {
        return stopped_by_watch(b);
    }
    b->u.reg_read(b->u.uc, REG_PC, &b->pc);
    return error ? stopped_by_error(b, error) : b->reason;
}

uint32_t board_pc(const struct board *b) {
    return b->pc;
}

void board_set_pc(struct board *b, uint32_t pc) {
    b->pc = pc;
    b->waiting = false;
}

/* `sizes`: a byte for each halfword of the modelled NOR and the SRAM, or NULL to stop noting. */
void board_watch_code(struct board *b, uint8_t *sizes) {
    b->code_sizes = sizes;
}
