/* Device models of the terminal's board, for the in-process engine: what the host knows of them.
 *
 * Time is virtual and counted in nanoseconds. Executing code takes 1 ns a byte of instructions (a
 * 400 MHz Cortex-A9, roughly), an access to a device 50 ns; nothing else makes time pass, so the
 * same input gives the same run to the bit.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NOR_CHIPS 2
#define NOR_BLOCK (256u * 1024u)        /* of the pair */
#define NOR_TOTAL (64u * 1024u * 1024u) /* of the pair, as CFI reports it */
#define NOR_MODELLED (4u * 1024u * 1024u)
#define NOR_BLOCKS (NOR_TOTAL / NOR_BLOCK)
#define NOR_BUFFER_WORDS 512u /* 16-bit words of one chip's write buffer */

enum fault_kind {
    FAULT_BUSY_FETCH = 1, /* code executed from a chip that is not in read-array mode */
    FAULT_BUSY_READ,      /* data read through the array alias while the chip answers with status */
    FAULT_PROGRAM_SET_BIT, /* program without erase: a 1 over a 0 */
    FAULT_COMMAND,         /* a command or a sequence that the chip refuses */
    FAULT_LOCKED,          /* program or erase of a locked block */
    FAULT_BOUNDS,          /* beyond what the layout uses, or a register that is not there */
    FAULT_EXCEPTION,       /* the CPU took an exception: see detail for the emulator's error */
    FAULT_UART_LOST,       /* a byte written to a full transmit FIFO or a disabled UART */
};

struct fault {
    uint32_t kind;
    uint32_t pc; /* start of the basic block, or the exact address for an exception */
    uint32_t address;
    uint32_t detail;
    uint64_t time;
};

enum op_kind { OP_WORD = 1, OP_BUFFER, OP_ERASE };

struct op {
    uint32_t kind;
    uint32_t lanes;  /* bit 0: low chip, bit 1: high chip */
    uint32_t offset; /* in the NOR, bytes */
    uint32_t length; /* bytes, of the pair */
    uint32_t failed; /* lanes that end it with an error; from SPOILT on those that spoil cells */
    uint32_t unused;
    uint64_t start, end;
    uint64_t data; /* of a program: where its bytes are kept; 0xff where nothing was given */
};

#define SPOILT 4u /* bits of lanes that fail, before those of lanes that spoil cells besides */

/* Operations that end with an error, as on worn cells: half of one is carried out. */
struct worn {
    uint32_t kinds;       /* bit k: operations of kind k (enum op_kind) */
    uint32_t first, last; /* offsets in the NOR, bytes; of operations that begin there */
    uint32_t lanes;       /* the chips that fail */
    uint32_t good;        /* so many operations go well before */
    uint32_t bad;         /* so many fail then; UINT32_MAX: all */
    uint32_t silent;      /* not 0: no error bit tells it; those fail of which it shows */
    uint32_t spoils;      /* not 0: a program that fails clears the word at which it ends */
    uint32_t times;       /* all operations there last so many times as long */
};

#define WORN_MOST 8u

enum stop_reason {
    STOP_TIME = 0, /* reached the time asked for */
    STOP_OUTPUT,   /* a UART finished a watched byte or went idle */
    STOP_CUT,      /* the armed power cut was reached; the operation was not begun */
    STOP_FAULT,    /* the firmware did something forbidden and cannot go on */
    STOP_RESET,    /* the firmware asked for a reset of the board: power off and on */
    STOP_BREAK,    /* the host asked for it, see board_break() */
    STOP_HALTED,   /* earlier fault: nothing runs until power goes off and on */
    STOP_WATCH,    /* before an instruction that accesses what is watched, see board_watch() */
};

enum watch_kind { WATCH_READ = 1, WATCH_WRITE = 2 };

#define WATCHES 16u

struct watch {
    uint32_t first, last; /* addresses, both watched */
    uint32_t kinds;
};

struct board;

struct page { /* uc_tlb_entry */
    uint64_t address;
    uint32_t permissions; /* uc_prot */
};

/* The functions of libunicorn that the models need; handed in, so that nothing is linked. */
struct unicorn {
    void *uc;
    int (*emu_start)(void *uc, uint64_t begin, uint64_t until, uint64_t timeout, size_t count);
    int (*emu_stop)(void *uc);
    int (*reg_read)(void *uc, int reg, void *value);
    int (*reg_write)(void *uc, int reg, const void *value);
    int (*mem_protect)(void *uc, uint64_t address, uint64_t size, uint32_t perms);
    int (*ctl)(void *uc, unsigned control, ...);
    int (*context_save)(void *uc, void *context);
    int (*context_restore)(void *uc, void *context);
    size_t (*context_size)(void *uc);
    void *scratch; /* a context */
};

#pragma GCC visibility push(default)

/* The memories, and room for copies of pages with code. */
struct board *board_new(uint8_t *nor, uint8_t *sram, uint8_t *copies);
/* The host has changed the NOR or the SRAM between two addresses. */
void board_changed(struct board *b, uint32_t low, uint32_t high);
void board_free(struct board *b);
void board_attach(struct board *b, const struct unicorn *unicorn);
void board_power_on(struct board *b, uint32_t pc);
void board_power_off(struct board *b);
uint64_t board_now(const struct board *b);
void board_settle(struct board *b);
void board_elapse(struct board *b, uint64_t ns);
int board_run(struct board *b, uint64_t until);
uint64_t board_blocks(const struct board *b);

/* Memory-mapped callbacks, as uc_mmio_map() wants them; user data is the board. */
uint64_t board_mmio_nor_read(void *uc, uint64_t offset, unsigned size, void *user);
void board_mmio_nor_write(void *uc, uint64_t offset, unsigned size, uint64_t value, void *user);
uint64_t board_mmio_motherboard_read(void *uc, uint64_t offset, unsigned size, void *user);
void board_mmio_motherboard_write(void *uc, uint64_t offset, unsigned size, uint64_t value,
                                  void *user);
uint64_t board_mmio_private_read(void *uc, uint64_t offset, unsigned size, void *user);
void board_mmio_private_write(void *uc, uint64_t offset, unsigned size, uint64_t value, void *user);
uint64_t board_mmio_noted_read(void *uc, uint64_t offset, unsigned size, void *user);
void board_on_block(void *uc, uint64_t address, uint32_t size, void *user);
bool board_on_page(void *uc, uint64_t address, int type, struct page *page, void *user);
bool board_on_protected(void *uc, int type, uint64_t address, int size, int64_t value, void *user);
void board_on_access(void *uc, int type, uint64_t address, int size, int64_t value, void *user);

void board_uart_push(struct board *b, int uart, const uint8_t *data, size_t length);
size_t board_line_take(struct board *b, int uart, uint8_t *data, size_t capacity);
size_t board_uart_overruns(struct board *b, int uart);

size_t board_faults(const struct board *b, struct fault *out, size_t capacity);
size_t board_ops(const struct board *b, struct op *out, size_t from, size_t capacity);
size_t board_op_data(const struct board *b, uint8_t *out, size_t capacity); /* of all of them */
void board_forget(struct board *b);
void board_break(struct board *b);
/* From now on, without power: where the board does what it did before, that is not executed again.
 * What it did is kept in so many bytes at most. */
void board_remember(struct board *b, size_t most);
/* Basic blocks that were not executed for that. */
uint64_t board_followed(const struct board *b);
/* The host wants to look at the SRAM, or at the CPU. */
void board_arrive(struct board *b);
/* It wants to change something there. */
void board_leave(struct board *b);
void board_watch(struct board *b, const struct watch *watches, size_t count);
unsigned board_watch_hit(const struct board *b, uint32_t *address);
int board_step(struct board *b, bool pass);
uint32_t board_pc(struct board *b);
void board_set_pc(struct board *b, uint32_t pc);
void board_watch_code(struct board *b, uint8_t *sizes);
void board_cut_before(struct board *b, uint64_t op);
bool board_locked_down(struct board *b, uint32_t offset);
void board_wear(struct board *b, const struct worn *worn, size_t count);

/* From now on what reads the NOR is noted: of these sources (enum note_source), 0: of none. What
 * was noted is forgotten. Without power. */
void board_note_reads(struct board *b, uint32_t sources);
/* The host has looked at this part of the NOR, and it has a say. */
void board_note(struct board *b, uint32_t offset, uint32_t length);
/* The units of 4 bytes whose first contents had a say, as a set of bits; returns its bytes. */
size_t board_relevant(const struct board *b, uint8_t *out, size_t capacity);

#pragma GCC visibility pop
