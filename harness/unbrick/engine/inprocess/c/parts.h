/* The parts of the board, as they know each other: one file for each part. The host knows board.h
 * alone.
 *
 *   board.c     the board as a whole: the bus to the NOR, power, the run loop
 *   cpu.c       what Unicorn needs to be told of code and pages
 *   code.c      copies of the pages that hold code
 *   stretches.c what the board did before, where it does the same again
 *   watch.c     watchpoints
 *   p30.c       a NOR chip
 *   pl011.c     a UART
 *   sp804.c     a timer
 *   vexpress.c  the motherboard: where each device is; the interrupt controller
 *   trace.c     operations and faults, kept for the host
 *   reads.c     which first contents of the NOR had a say
 *   parts.c     what all of them need */
#pragma once

#include "board.h"
#include "notes.h"
#include "queue.h"

#define ACCESS_NS 50u /* of an access to a device */
#define NEVER UINT64_MAX
#define SRAM_BASE 0x48000000u
#define SRAM_SIZE (2u * 1024u * 1024u)
#define PAGE 1024u /* bytes; of Unicorn's memory */
#define FAULTS_KEPT 64u
#define NOWHERE 1u          /* address where no instruction begins */
#define NOTED (1ull << 32)  /* where Unicorn has the NOR of which each load is noted */
#define COPIED (2ull << 32) /* and the copies of pages with code */
#define COPIES 8192u        /* pages */
/* Where they are while they are given up; the board has nothing there. */
#define GIVEN_UP 0xe0000000u

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

struct job { /* what a chip's write state machine is doing, or has suspended */
    enum busy kind;
    uint32_t word;  /* chip word address of the first word */
    uint32_t count; /* words */
    uint64_t start, end, left;
    uint32_t serial;
    bool fails;  /* it will end half done */
    bool silent; /* and with no error bit that says so */
    bool spoils; /* and clears the word at which it ends */
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

#define UART_FIFO 16u

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
    bool executed[SRAM_SIZE / PAGE]; /* where it lies, since power-on: it was written later */
    bool recopied; /* the block that runs may be of a copy that is no longer good */
    struct code *code;
    bool giving_up;    /* all copies */
    int reason, stuck; /* stuck: the reason for which nothing runs until power goes off and on */
    struct fault faults[FAULTS_KEPT];
    size_t fault_count;
    struct op *ops;
    size_t op_count, op_capacity;
    uint8_t *op_data;
    size_t op_data_size, op_data_capacity;
    uint64_t cut_before;
    struct worn worn[WORN_MOST];
    size_t worn_count;
    uint8_t *code_sizes;
    uint32_t job_serial;
    struct watch watches[WATCHES];
    size_t watch_count;
    uint32_t passed; /* address of an instruction that may access what is watched */
    struct notes notes;
    uint8_t erased[NOR_MODELLED / NOR_BLOCK]; /* chips that have erased a block, as lanes */
    struct hit hit;
    struct stretches *stretches; /* NULL: none are kept */
};

static inline uint16_t get16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline void put16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static inline uint64_t later(uint64_t a, uint64_t c) {
    return a > c ? a : c;
}

static inline uint64_t sooner(uint64_t a, uint64_t c) {
    return a < c ? a : c;
}

/* An access to a device takes time, and takes place unless a watch was to stop the CPU before. */
static inline bool takes_place(struct board *b) {
    if (b->hit.pending) {
        return false;
    }
    b->now += ACCESS_NS;
    return true;
}

/* parts.c */
void fault(struct board *b, uint32_t kind, uint32_t address, uint32_t detail);
void stop(struct board *b, int reason);
void fatal(struct board *b, uint32_t kind, uint32_t address, uint32_t detail);

/* p30.c */
void chip_reset(struct chip *c);
void chip_lose_power(struct board *b, int chip);
void chip_settle(struct board *b, int chip);
uint16_t chip_read(struct board *b, int chip, uint32_t word);
bool chip_begins(const struct chip *c, uint32_t word, uint16_t value);
void chip_write(struct board *b, int chip, uint32_t word, uint16_t value);
/* Whether it could be read that only half of the operation that has just begun is carried out. */
bool chip_shows_half(struct board *b, int chip);

/* reads.c */
void note_cells(struct board *b, uint32_t word, uint32_t count); /* the chips look at them */
void note_erase(struct board *b, int chip, uint32_t word);
void note_block(struct board *b, uint32_t address, uint32_t size);
void forget_pages(struct board *b);

/* trace.c */
void trace_op(struct board *b, uint32_t lanes, uint32_t failed);

/* pl011.c */
void look_again(struct board *b);
void uart_reset(struct board *b, struct uart *u);
void uart_free(struct uart *u);
bool uart_shows(struct board *b, struct uart *u);
uint64_t uart_next(struct board *b, struct uart *u);
void uart_push(struct board *b, int uart, const uint8_t *data, size_t length);
uint32_t uart_read(struct board *b, struct uart *u, uint32_t reg);
void uart_write(struct board *b, struct uart *u, uint32_t reg, uint32_t value);

/* sp804.c */
void timer_reset(struct timer *t);
uint64_t timer_next(struct board *b, struct timer *t);
uint32_t timer_read(struct board *b, struct timer *t, uint32_t reg);
void timer_write(struct board *b, struct timer *t, uint32_t reg, uint32_t value);

/* vexpress.c */
bool gic_passes(const struct board *b, unsigned irq);

/* cpu.c */
void forget_code(struct board *b, uint64_t low, uint64_t high);
void forget_sram_code(struct board *b);
void leave_it_block(struct board *b, void *uc);

/* code.c */
struct code *code_new(uint8_t *copies);
void code_free(struct code *c);
/* Where Unicorn finds what the page of the NOR or the SRAM at an address holds now. */
uint64_t code_address(struct board *b, uint32_t address);
/* Whether that was asked of a page of the SRAM, by its number, since it changed. */
bool code_is_copied(const struct board *b, uint32_t page);
void code_nor_changed(struct board *b, uint32_t low, uint32_t high);
void code_sram_changed(struct board *b, uint32_t page);

/* stretches.c */
void stretches_free(struct board *b);
/* The power has come, or goes. */
void stretches_begin(struct board *b);
void stretches_end(struct board *b);
/* The host wants to see more of the board than what a stretch has of it; or it changes something,
 * and until the next power-on nothing is kept. */
void stretches_arrive(struct board *b);
void stretches_leave(struct board *b);
/* Whether memories and devices are not where they are said to be. */
bool stretches_follow(const struct board *b);
/* Then: which blocks are locked down, as a set. */
uint32_t stretches_locked_down(const struct board *b);
/* As run_board() and uart_push() */
int stretch_run(struct board *b, uint64_t until);
void stretch_push(struct board *b, int uart, const uint8_t *data, size_t length);
/* The board looks at the page of the NOR with this address. */
void stretch_reads(struct board *b, uint32_t address);
/* A chip is about to carry out an operation, or to have it torn. */
void stretch_changes(struct board *b, int chip, const struct job *j);
/* The host has changed a part of the NOR. */
void stretch_loads(struct board *b, uint32_t low, uint32_t high);

/* board.c */
void show_array(struct board *b, bool hide);
int run_board(struct board *b, uint64_t until);
void settle_chips(struct board *b);
bool are_locked_down(const struct board *b, uint32_t offset);

/* watch.c */
int stopped_by_watch(struct board *b);
