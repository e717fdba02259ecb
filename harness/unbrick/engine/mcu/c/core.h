/* The core of a microcontroller: what its own parts know, and devices do not. */
#pragma once

#include "notes.h"
#include "parts.h"

#define MOST_EXCEPTIONS 496u
#define WORDS (MOST_EXCEPTIONS / 32u + 1u)
#define MOST_DEVICES 128u
#define MOST_MEMORIES 512u
#define MOST_FLASHES 8u
#define MOST_RAMS 8u
#define MOST_PLAIN_AREAS 16u
#define MOST_LINES 16u
#define MOST_MPU_REGIONS 16u
#define FAULTS_KEPT 64u
#define PLAIN_SLOTS 4096u
#define MOST_BREAKPOINTS 64u
#define MOST_WATCHES 16u
#define PAGE 1024u         /* bytes; of Unicorn's memory with an M-profile core */
#define BUS (1ull << 32)   /* where Unicorn has all registers: an address is 4 GiB further */
#define GUARD (2ull << 32) /* where it has memory of which each access is looked at */
#define NOTED (3ull << 32) /* where it has flash of which each load is noted */
#define MOST_LOADS 1024u   /* of a page with code; from then on all of it has a say */
#define NEVER_INLINE __attribute__((noinline))

/* Unicorn's numbers, arm.h of 2.1.4. */
enum {
    REG_NZCV = 2,
    REG_FPSCR = 6,
    REG_LR = 10,
    REG_PC = 11,
    REG_SP = 12,
    REG_D0 = 14,
    REG_R0 = 66,
    REG_R12 = 78,
    REG_IPSR = 114,
    REG_MSP = 115,
    REG_PSP = 116,
    REG_CONTROL = 117,
    REG_XPSR = 120,
    REG_PRIMASK = 123,
    REG_BASEPRI = 124,
    REG_FAULTMASK = 126,
    REG_XPSR_ALL = 138, /* with the bits of the DSP extension */
    REG_ESR = 140
};

enum { ACCESS_WRITE = 17, ACCESS_FETCH = 18 }; /* uc_mem_type; others read */

enum exception {
    EXC_RESET = 1,
    EXC_NMI,
    EXC_HARD,
    EXC_MEMORY,
    EXC_BUS,
    EXC_USAGE,
    EXC_SVC = 11,
    EXC_DEBUG,
    EXC_PENDSV = 14,
    EXC_SYSTICK,
    EXC_EXTERNAL
};

/* CFSR, Armv7-M ARM B3.2.15 */
enum {
    IACCVIOL = 1u << 0,
    DACCVIOL = 1u << 1,
    MUNSTKERR = 1u << 3,
    MSTKERR = 1u << 4,
    MMARVALID = 1u << 7,
    IBUSERR = 1u << 8,
    PRECISERR = 1u << 9,
    UNSTKERR = 1u << 11,
    STKERR = 1u << 12,
    BFARVALID = 1u << 15,
    UNDEFINSTR = 1u << 16,
    INVSTATE = 1u << 17,
    INVPC = 1u << 18,
    NOCP = 1u << 19,
    STKOF = 1u << 20,
    UNALIGNED = 1u << 24
};

/* HFSR, B3.2.16 */
enum { VECTTBL = 1u << 1, FORCED = 1u << 30 };
#define DEBUGEVT (1u << 31)

/* An access that cannot be: which fault it is. */
struct trap {
    uint32_t cfsr;
    uint32_t address; /* of the data; the instruction's for others */
};

struct polling {
    uint32_t address, value, before, pc; /* of the last read of a register, and its other value */
    uint32_t reads;                      /* such reads before it */
};

/* What was where a block that is refused has written. */
struct undo {
    uint32_t address, size;
    uint8_t bytes[16];
};

struct plain_area {
    uint32_t base, size;
};

struct ram {
    uint32_t base, size;
    uint8_t *memory;
    bool *executed;  /* pages, since power-on */
    bool constant;   /* a ROM */
    uint8_t *blocks; /* of a ROM: for each halfword what there is about a block that begins there */
};

/* What there is about a basic block; kept for those in flash. One that was noted need not be noted
 * again, until noting begins anew. */
enum { BLOCK_SEEN = 1, BLOCK_SEV = 2, BLOCK_FPU = 4, BLOCK_UNMASKS = 8, BLOCK_SPIN = 16 };
enum { BLOCK_NOTED = 32, BLOCK_LOOP = 64, BLOCK_BROKEN = 128 };

struct region { /* of flash */
    struct flash *flash;
    bool mapped;     /* it may be executed */
    uint8_t *blocks; /* for each halfword: what there is about a block that begins there */
    bool *executed;  /* pages of which there is translated code */
    bool *coded;     /* pages of which code was noted, since the last pause of noting */
    uint16_t *loads; /* for each of those, how many loads were noted since, at most MOST_LOADS */
    uint8_t *broken; /* for each page, how many units have a wrong check cell; NULL: it has none */
};

struct mpu {
    uint32_t control, number;
    uint32_t base[MOST_MPU_REGIONS];  /* RBAR */
    uint32_t limit[MOST_MPU_REGIONS]; /* RASR, in Armv8-M RLAR */
    uint32_t mair[2];
    uint64_t mixed; /* pages in which not all may be alike, as numbers modulo 64 */
    uint32_t mixed_first, mixed_last; /* addresses between which they are */
};

struct systick {
    uint32_t control, reload;
    uint64_t zero;  /* when it next counts to zero; NEVER while it is off */
    uint32_t value; /* while it is off */
};

struct nvic {
    unsigned count; /* exceptions that there are, with the 16 of the core */
    unsigned words;
    uint32_t pending[WORDS], enabled[WORDS], active[WORDS], level[WORDS];
    unsigned pending_count; /* whether any word of pending & enabled may not be 0 */
    uint8_t priority[MOST_EXCEPTIONS];
    uint8_t implemented; /* bits of a priority */
};

struct scs {
    struct systick systick;
    struct mpu mpu;
    uint32_t vtor, aircr, scr, ccr, shcsr, cfsr, hfsr, mmfar, bfar, cpacr;
    uint32_t fpccr, fpcar, fpdscr, demcr, dwt_control;
    uint64_t cycles_from; /* when the cycle counter was 0 */
    uint32_t cycles;      /* while it is off */
};

struct memory {
    const void *at;
    size_t size;
};

struct sent { /* a byte on a line; one from the host has bit 8 set */
    uint64_t done;
    const struct line *line;
    uint64_t byte;
};
enum { FROM_HOST = 1 << 8 };

struct breakpoint {
    uint32_t address;
    size_t hook;
};

/* What a debugger wants. */
struct debug {
    bool attached;
    bool looks;                    /* at each block that begins: it steps or passes */
    bool stepping, begun, stepped; /* the instruction has begun; the step is made, but for sleep */
    bool passing;                  /* the block with the passed instruction has not begun yet */
    bool faulted;                  /* since it last looked */
    int reason; /* why the core stopped in the middle of a block; 0: it did not */
    bool past_watch;
    uint32_t passed;        /* address of the instruction that nothing stops; or NOWHERE */
    uint32_t paid, paid_pc; /* bytes from there on whose time has passed already */
    struct breakpoint breakpoints[MOST_BREAKPOINTS];
    size_t breakpoint_count;
    struct watch watches[MOST_WATCHES];
    size_t watch_count, watch_hook;
    size_t hit;
    uint32_t hit_address;
};

struct mcu {
    struct unicorn u;
    struct setup setup;

    uint64_t now, until;
    uint64_t end;   /* when a basic block is not begun any more; 0: at once */
    uint64_t event; /* when the next device is due */
    uint64_t bytes; /* of instructions, executed */
    uint64_t exceptions, resets;
    uint32_t pace; /* of a byte of instructions, in 1/1024 ns */
    uint32_t cycle_ns;

    uint32_t pc, block_pc, spin_pc;
    unsigned spins;
    unsigned looks;  /* at the time, since a register was stored to */
    unsigned rounds; /* blocks of loops that count, since some were skipped */
    bool thumb;      /* what the T bit is to be at pc */
    bool powered, stopping, waiting, waiting_for_event, spinning, event_register;
    bool masked;            /* an exception is pending that only a mask keeps from being taken */
    bool look;              /* the block under way may have changed a mask */
    bool resetting;         /* asked for */
    bool pressed;           /* by the pin */
    bool browned;           /* by a supply that was too low */
    enum reset_cause cause; /* why the chip has reset itself */
    bool aborting;    /* an access was refused: nothing more of this block is to have an effect */
    bool trapped;     /* `trap` is to be raised */
    bool fpu_blocked; /* the block that is announced needs the FPU, which is off */
    bool host;        /* pages are asked for by the host, which may see all */
    bool broken;      /* code has read or is to execute what has a wrong check cell, at broken_at */
    bool letting;     /* one instruction is executed all the same */
    uint32_t broken_at, let_block;
    int reason, stuck;
    int interrupt; /* what Unicorn called it, or -1 */
    struct trap trap;
    struct polling polling;
    uint32_t block_size;  /* of the block at block_pc */
    uint32_t until_pc;    /* where to stop executing; 0: nowhere */
    uint8_t *fast_blocks; /* of the first region of flash that is mapped */
    uint32_t fast_base, fast_size, fast_first;

    struct nvic nvic;
    struct scs scs;

    struct device *devices[MOST_DEVICES]; /* by base */
    size_t device_count;
    struct memory memories[MOST_MEMORIES]; /* of devices */
    size_t memory_count;
    struct region regions[MOST_FLASHES];
    size_t region_count;
    struct flash roms[MOST_FLASHES]; /* regions that no device controls */
    size_t rom_count;
    uint32_t image_size;
    struct ram rams[MOST_RAMS];
    size_t ram_count;
    struct plain_area areas[MOST_PLAIN_AREAS];
    size_t area_count;
    struct line *lines[MOST_LINES];
    size_t line_count;
    struct line semihosting;

    struct plain *plain; /* PLAIN_SLOTS of them, hashed by address */
    uint32_t *plain_reset;

    struct fault faults[FAULTS_KEPT];
    size_t fault_count;
    struct op *ops;
    size_t op_count, op_capacity;
    uint8_t *op_data;
    size_t op_data_size, op_data_capacity;
    uint64_t cut_before, brown_out_in; /* numbers of operations; NEVER: none */
    size_t hook[5];
    size_t code_hook;    /* 0: none */
    uint8_t *code_sizes; /* of the host; NULL: nobody wants to know */
    bool watches;        /* every access is looked at */
    bool swaps;          /* a flash has or had banks with each other's addresses */
    bool has_broken;     /* there were cells whose check cell is wrong */
    struct notes notes;  /* which first contents of the flash had a say */
    struct joins *joins; /* NULL: sessions do not join others */
    uint64_t erases;     /* since noting began */
    bool pausing;        /* an erase has begun: noting may pause before the next block */
    struct sent *sent;   /* in this session, while sessions join others */
    size_t sent_count, sent_capacity;
    uint32_t *recalled; /* by devices, in this session */
    size_t recalled_count, recalled_capacity;
    struct undo *undo;
    size_t undo_count, undo_capacity;
    struct debug debug;
};

/* mcu.c */
void stop(struct mcu *m, int reason);
void look_again(struct mcu *m);
int emulate(struct mcu *m, uint32_t until);
uint32_t read_register(struct mcu *m, int reg);
void write_register(struct mcu *m, int reg, uint32_t value);

static inline bool is_application(const struct mcu *m) {
    return m->setup.core == CORE_A15;
}

static inline bool is_main(const struct mcu *m) { /* not one of the small cores */
    return m->setup.core >= CORE_M3;
}

/* memory.c */
int memory_connect(struct mcu *m);
struct ram *find_ram(struct mcu *m, uint32_t address, uint32_t *offset);
struct region *find_flash(struct mcu *m, uint32_t address, uint32_t *offset);
uint32_t code_address(const struct mcu *m, uint64_t place);

void forget_code(struct mcu *m, struct region *r, uint32_t offset, uint32_t length);
void forget_ram_code(struct mcu *m);
void forget_all_code(struct mcu *m);
void forget_notes_of_blocks(struct mcu *m);
void forget_loads(struct mcu *m);
void forget_pages(struct mcu *m);
void watch_accesses(struct mcu *m);
void take_back(struct mcu *m);
void keep_bytes(struct mcu *m, uint32_t address, uint32_t size);
void leave_it_block(struct mcu *m);
bool is_bit_band(const struct mcu *m, uint32_t address, uint32_t *target);
uint8_t look_at_block(struct mcu *m, uint32_t address, uint32_t size);
void forget_range(struct mcu *m, uint32_t low, uint32_t high);
uint8_t *memory_at(struct mcu *m, uint32_t address, uint32_t length, bool to_write);
uint32_t find_fpu_instruction(struct mcu *m, uint32_t address, uint32_t size);
bool halfword_at(struct mcu *m, uint32_t address, uint16_t *value);

/* check.c */
void check_add(struct region *r);
void check_look(struct mcu *m, struct region *r, uint32_t offset, uint32_t length);
void check_mend(struct mcu *m, struct region *r, uint32_t offset, uint32_t length);
bool check_is_broken_at(struct mcu *m, uint32_t address, uint32_t length); /* for code */
bool check_is_broken_page(const struct region *r, uint32_t offset);
void pass_broken(struct mcu *m); /* the instruction is executed, then its flash is told */

/* application.c */
bool application_is_thumb(struct mcu *m);
void application_leave_it_block(struct mcu *m);
void application_take_invalid(struct mcu *m); /* the instruction at the PC is done, or a fault */
bool application_take_interrupt(struct mcu *m);

/* loops.c */
bool is_counting_loop(struct mcu *m, uint32_t head); /* in flash; the block that begins there */
void skip_rounds(struct mcu *m, uint32_t head);      /* as many as can be; that block begins */

/* joins.c */
void joins_begin(struct mcu *m);               /* a session */
bool joins_look(struct mcu *m, uint32_t pc);   /* false: it joins another one before this block */
void joins_end(struct mcu *m);                 /* the power goes */
uint64_t *joins_relevant(const struct mcu *m); /* of the whole session; to be freed */
void joins_free(struct mcu *m);

/* reads.c */
void note_checks(const struct mcu *m, uint64_t *relevant); /* adds what goes with them */

/* exceptions.c */
enum masks { WITH_PRIMASK = 1, WITH_OTHERS = 2, WITH_ALL = 3, WITHOUT = 0 };
int execution_priority(struct mcu *m, enum masks masks);
unsigned find_exception(struct mcu *m, enum masks masks); /* that would be taken; 0: none */
void enter_exception(struct mcu *m, unsigned exception);
void leave_exception(struct mcu *m, uint32_t exc_return);
void raise_fault(struct mcu *m, unsigned exception, uint32_t cfsr, uint32_t address);
/* The same fault, which is none of the firmware's. */
void take_fault(struct mcu *m, unsigned exception, uint32_t cfsr, uint32_t address);
void raise_hard_fault(struct mcu *m, uint32_t hfsr);

/* nvic.c */
void nvic_reset(struct mcu *m);
void nvic_pend(struct mcu *m, unsigned exception);
void nvic_unpend(struct mcu *m, unsigned exception);
bool nvic_is_active(const struct mcu *m, unsigned exception);
void nvic_activate(struct mcu *m, unsigned exception);
void nvic_deactivate(struct mcu *m, unsigned exception);
unsigned nvic_best(struct mcu *m, int *priority); /* pending and enabled, whatever runs */
int nvic_priority(const struct mcu *m, unsigned exception);
int nvic_group(const struct mcu *m, int priority);
uint32_t nvic_read(struct mcu *m, uint32_t offset);
void nvic_write(struct mcu *m, uint32_t offset, unsigned size, uint32_t value);

/* scs.c */
void scs_reset(struct mcu *m);
uint64_t scs_next(const struct mcu *m);
void scs_settle(struct mcu *m);
uint32_t scs_read(struct mcu *m, uint32_t offset, unsigned size);
uint32_t scs_look(struct mcu *m, uint32_t offset);
void scs_write(struct mcu *m, uint32_t offset, unsigned size, uint32_t value);
bool fpu_is_on(const struct mcu *m);

/* mpu.c */
enum { MAY_READ = 1, MAY_WRITE = 2, MAY_EXECUTE = 4, MAY_ALL = 7 };
bool mpu_is_on(struct mcu *m);
unsigned mpu_permissions(struct mcu *m, uint32_t address, bool privileged);
/* Whether an address may be in a page that is not the same in all of it. */
static inline bool mpu_may_be_mixed(const struct mcu *m, uint32_t address) {
    const struct mpu *p = &m->scs.mpu;
    return p->mixed >> (address / PAGE & 63) & 1 && address >= p->mixed_first &&
           address <= p->mixed_last;
}
bool mpu_is_mixed(struct mcu *m, uint32_t page);
bool mpu_lets_execute(struct mcu *m, uint32_t address);
bool mpu_has_exceptions(const struct mcu *m);
uint32_t mpu_read(struct mcu *m, uint32_t offset);
void mpu_write(struct mcu *m, uint32_t offset, uint32_t value);
bool is_privileged(struct mcu *m);

/* plain.c */
void plain_reset_all(struct mcu *m);
void plain_forget(struct mcu *m);

/* line.c */
void line_keep(struct mcu *m, const struct line *l, unsigned byte, uint64_t done); /* for joins.c */
bool line_shown(struct mcu *m, struct line *l); /* the host wants to look now */
void line_reset(struct mcu *m, struct line *l);
void line_free(struct line *l);
void line_forget(struct line *l);

/* debug.c */
bool debug_lets_begin(struct mcu *m, uint32_t address); /* false: a step ends before this block */
void debug_reset(struct mcu *m);
int debug_reason(struct mcu *m); /* to stop now, of enum stop_reason; 0: there is none */
bool debug_takes_bkpt(struct mcu *m);

/* semihosting.c */
bool semihost(struct mcu *m); /* at BKPT 0xAB; false: it is unknown */
