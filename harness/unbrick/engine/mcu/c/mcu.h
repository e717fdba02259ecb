/* A Cortex-M microcontroller on Unicorn: what the host knows of it.
 *
 * Time is virtual and counted in nanoseconds. Executing code takes the pace (picoseconds a byte of
 * instructions), an access to a register takes `access_ns`; nothing else makes time pass but
 * what devices say and waiting, so the same input gives the same run to the bit.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum core { CORE_M0 = 1, CORE_M0PLUS, CORE_M3, CORE_M4, CORE_M7, CORE_M33, CORE_A15 };

enum fault_kind {
    /* of the core */
    FAULT_HARD = 1, /* HardFault; detail: HFSR */
    FAULT_MEMORY,   /* MemManage fault; address: MMFAR or the instruction's; detail: CFSR */
    FAULT_BUS,      /* BusFault; address: BFAR or the instruction's; detail: CFSR */
    FAULT_USAGE,    /* UsageFault; address: the instruction's; detail: CFSR */
    FAULT_LOCKUP,   /* a fault in a handler of faults: the core stands still; detail: CFSR */
    FAULT_EMULATOR, /* Unicorn gave up; detail: its error */
    /* of flash controllers; address: offset in the flash image */
    FAULT_FLASH_LOCKED,    /* program, erase or register while the controller is locked; detail:
                              value */
    FAULT_FLASH_DIRTY,     /* program over cells that are not erased; detail: value */
    FAULT_FLASH_WIDTH,     /* a store of the wrong width or place; detail: bytes */
    FAULT_FLASH_BUSY,      /* program or erase while an operation is under way; detail: value */
    FAULT_FLASH_PROTECTED, /* program or erase of a protected page or sector; detail: value */
    FAULT_FLASH_WORN,      /* a word programmed more often than the chip allows; detail: times */
    FAULT_FLASH_STRAY,     /* a store to flash that no operation expects; detail: value */
    FAULT_FLASH_COMMAND,   /* a command or an argument that the controller refuses; detail: value */
    /* of other devices */
    FAULT_UART_LOST, /* a byte sent while the transmitter was full or off; address: of the register;
                        detail: byte */
    FAULT_WATCHDOG,  /* a watchdog reset the chip; address: of its registers */
    FAULT_FLASH_FETCH, /* code runs from flash that shows its status; address: as of the controllers
                        */
    FAULT_FLASH_HIDDEN, /* a load from flash that cannot be read now; address: likewise */
};

struct fault {
    uint32_t kind;
    uint32_t pc; /* start of the basic block, or the exact address for an exception */
    uint32_t address;
    uint32_t detail;
    uint64_t time;
};

enum op_kind { OP_PROGRAM = 1, OP_ERASE };

struct op {
    uint32_t kind;
    uint32_t lanes;  /* 1 */
    uint32_t offset; /* in the flash image: all regions, one after the other */
    uint32_t length; /* bytes */
    uint32_t failed; /* 0 */
    uint32_t unused;
    uint64_t start, end;
    uint64_t data; /* of a program: where its bytes are kept */
};

enum stop_reason {
    STOP_TIME = 0, /* reached the time asked for */
    STOP_OUTPUT,   /* a line finished a line of text or went idle */
    STOP_CUT,      /* the armed power cut was reached; the operation was not begun */
    STOP_LOCKUP,   /* the core locked up: nothing runs until a reset by the pin or power */
    STOP_QUIET,    /* the firmware waits for what will not come without the host */
    STOP_EXIT,     /* the firmware ended itself by semihosting; nothing runs any more */
    STOP_BREAK,    /* before an instruction with a breakpoint, or at a BKPT */
    STOP_WATCH,    /* before an instruction that accesses what is watched */
    STOP_STEP,     /* the step has been made */
    STOP_FAULT,    /* the firmware did what it must not; a handler of it has begun */
    STOP_JOINED,   /* from here on the session is another one; nothing runs any more */
};

/* What the core is, and how time passes. */
struct setup {
    uint32_t core;       /* enum core */
    uint32_t interrupts; /* lines of the NVIC, 32 to 480 */
    uint32_t priority_bits;
    uint32_t mpu_regions;  /* 0: no MPU */
    uint32_t fpu;          /* 1: single precision, 2: double as well */
    uint32_t bit_band;     /* 1: the chip has it */
    uint32_t secure_alias; /* 1: RAM and devices are 256 MiB further, too, for secure code */
    uint32_t shared_bus;   /* 1: that of an RP2040; see plain_address() */
    uint32_t vectors;      /* address of the vector table at reset */
    uint32_t hz;           /* of the core's clock: SysTick, DWT */
    uint32_t systick_hz;   /* of SysTick's external clock, or the generic timer; 0: there is none */
    uint32_t pace_ps;      /* picoseconds a byte of instructions */
    uint32_t access_ns;    /* of an access to a register */
    uint32_t semihosting;  /* 1: BKPT 0xAB writes to a line of its own, the first one */
};

/* A register that nobody models, as the firmware used it. */
struct plain {
    uint32_t address; /* of the aligned word */
    uint32_t value;   /* as last written */
    uint32_t reads, writes;
    uint32_t vain; /* the most reads by one basic block that were for nothing: no write between */
    uint32_t run;  /* such reads now */
    uint32_t pc;   /* of the block that read it last */
};

/* Bytes whose accesses by the core stop it. */
enum watch_kind { WATCH_READ = 1, WATCH_WRITE = 2 };
struct watch {
    uint32_t first, last;
    uint32_t kinds; /* of enum watch_kind */
};

/* A debugger's numbers of the registers. */
enum core_register {
    CORE_SP = 13, /* from 0 on R0 to R12 */
    CORE_LR,
    CORE_PC,
    CORE_XPSR,
    CORE_MSP,
    CORE_PSP,
    CORE_PRIMASK,
    CORE_BASEPRI,
    CORE_FAULTMASK,
    CORE_CONTROL,
    CORE_D0, /* to D15 */
    CORE_FPSCR = CORE_D0 + 16,
    CORE_REGISTERS
};

/* The functions of libunicorn that are needed; handed in, so that nothing is linked. */
struct unicorn {
    void *uc;
    void *reset_state; /* uc_context of the CPU at reset */
    void *scratch;     /* another one, for the core */
    int (*emu_start)(void *uc, uint64_t begin, uint64_t until, uint64_t timeout, size_t count);
    int (*emu_stop)(void *uc);
    int (*reg_read)(void *uc, int reg, void *value);
    int (*reg_write)(void *uc, int reg, const void *value);
    int (*context_save)(void *uc, void *context);
    int (*context_restore)(void *uc, void *context);
    size_t (*context_size)(void *uc);
    int (*mem_map_ptr)(void *uc, uint64_t address, size_t size, uint32_t permissions, void *memory);
    int (*mmio_map)(void *uc, uint64_t address, size_t size, void *read, void *read_user,
                    void *write, void *write_user);
    int (*hook_add)(void *uc, void *hook, int type, void *function, void *user, uint64_t begin,
                    uint64_t end, ...);
    int (*hook_del)(void *uc, size_t hook);
    int (*ctl)(void *uc, unsigned control, ...);
};

struct mcu;

#pragma GCC visibility push(default)

struct mcu *mcu_new(const struct unicorn *unicorn, const struct setup *setup);
void mcu_free(struct mcu *m); /* devices too; the memories are the host's */

/* RAM: `memory` has `size` bytes; both, and the address, are multiples of 4096. */
int mcu_add_ram(struct mcu *m, uint32_t address, uint32_t size, uint8_t *memory);
/* A boot ROM, likewise: no part of the flash image. */
int mcu_add_boot_rom(struct mcu *m, uint32_t address, uint32_t size, uint8_t *memory);
/* Addresses where registers that nobody models are no bus fault; where they are
 * none anyway: 0x40000000 to 0x5fffffff. */
int mcu_add_plain(struct mcu *m, uint32_t address, uint32_t size);
/* The flash image, all regions one after the other; what is missing at its end is 0xff. Without
 * power. */
void mcu_load_flash(struct mcu *m, const uint8_t *image, size_t length);

void mcu_power_on(struct mcu *m);
void mcu_power_off(struct mcu *m);
void mcu_press_reset(struct mcu *m); /* the pin: the next run begins with it, also after a lockup */
void mcu_brown_out(struct mcu *m);   /* the supply was too low for a moment: likewise */
int mcu_run(struct mcu *m, uint64_t until);
uint64_t mcu_now(const struct mcu *m);
uint64_t mcu_instruction_bytes(const struct mcu *m);
uint64_t mcu_exceptions(const struct mcu *m);
uint64_t mcu_resets(const struct mcu *m);
uint32_t mcu_pc(const struct mcu *m);
bool mcu_quiet(struct mcu *m);  /* it waits for what will not come without the host */
void mcu_settle(struct mcu *m); /* devices do what is due, before the host looks at memories */
void mcu_forget(struct mcu *m); /* without power: time 0, no operations, no faults */

/* From now on what reads flash is noted: of these sources (enum note_source), 0: of none. What was
 * noted is forgotten. Without power. */
void mcu_note_reads(struct mcu *m, uint32_t sources);
/* The host has looked at this part of the flash image, and it has a say. */
void mcu_note(struct mcu *m, uint32_t offset, uint32_t length);
/* The units of 4 bytes of the flash image whose first contents had a say, as a set of bits; returns
 * its bytes. */
size_t mcu_relevant(const struct mcu *m, uint8_t *out, size_t capacity);

/* Sessions that come to where a kept one has been: they end there, with STOP_JOINED. */

/* What of a machine is compared with what another one was. */
enum join_part {
    JOIN_CORE = 1 << 0,
    JOIN_RAMS = 1 << 1,
    JOIN_DEVICES = 1 << 2,
    JOIN_PAST = 1 << 3, /* what was done and said */
    JOIN_FLASH = 1 << 4 /* as far as it has a say */
};

/* From now on sessions join others that agree in these parts. Without power; once. */
void mcu_join_sessions(struct mcu *m, uint32_t parts);
/* The session that is to begin joins those of the same kind. */
void mcu_set_kind(struct mcu *m, uint64_t kind);
/* Keeps the session that has ended, for others to join; false: there is nowhere to join it. */
bool mcu_keep_session(struct mcu *m, uint64_t number);
/* No session joins this one any more. */
void mcu_drop_session(struct mcu *m, uint64_t number);
/* The session that this one has joined; UINT64_MAX: none. */
uint64_t mcu_joined(const struct mcu *m);

/* Lines, in the order in which UARTs were made. */
size_t mcu_lines(const struct mcu *m);
void mcu_line_push(struct mcu *m, unsigned line, const uint8_t *data, size_t length);
size_t mcu_line_take(struct mcu *m, unsigned line, uint8_t *data, size_t capacity);
size_t mcu_line_overruns(const struct mcu *m, unsigned line);

void mcu_cut_before(struct mcu *m, uint64_t op);
/* In the middle of an operation, mcu_brown_out() happens. */
void mcu_brown_out_in(struct mcu *m, uint64_t op);
size_t mcu_ops(const struct mcu *m, struct op *out, size_t from, size_t capacity);
size_t mcu_op_data(const struct mcu *m, uint8_t *out, size_t capacity); /* of all of them */
size_t mcu_faults(const struct mcu *m, struct fault *out, size_t capacity);
size_t mcu_plain(const struct mcu *m, struct plain *out, size_t capacity);

/* For a debugger; each between two runs only. What it sets outlives resets and power cuts. */

/* Whether there is one: faults and BKPT stop the core. */
void mcu_debug(struct mcu *m, bool attached);
/* Sets or clears the breakpoint at an address. False: there are too many. */
bool mcu_break_at(struct mcu *m, uint32_t address, bool wanted);
/* Notes which code is executed from now on. `sizes` has a byte for each halfword of the flash image
 * and then of every RAM; there the size of a block that begins is put, in halfwords, 255 at most.
 * NULL: it is no longer noted. False: there is no memory. */
bool mcu_watch_code(struct mcu *m, uint8_t *sizes);
/* What is watched from now on: at most 16. */
void mcu_watch(struct mcu *m, const struct watch *watches, size_t count);
/* Which watch the last STOP_WATCH was for, and the address in it that is accessed first. */
size_t mcu_watch_hit(const struct mcu *m, uint32_t *address);
/* No breakpoint stops the core before the next instruction, and nothing that is watched if that is
 * to be passed, too. */
void mcu_pass(struct mcu *m, bool past_watch);
/* As mcu_run(), but for one instruction, the begin of an exception, or a reset: STOP_STEP. A sleep
 * is a part of the instruction that began it. Otherwise the step has not been made. */
int mcu_step(struct mcu *m, uint64_t until);
uint64_t mcu_core_read(struct mcu *m, unsigned number); /* of enum core_register */
void mcu_core_write(struct mcu *m, unsigned number, uint64_t value);
/* Changes RAM. False: it is not all there. */
bool mcu_poke(struct mcu *m, uint32_t address, const uint8_t *data, uint32_t length);
/* A word of the core's own registers, which looking does not change. False: there are none. */
bool mcu_look(struct mcu *m, uint32_t address, uint32_t *value);
/* Changes the flash image, as no operation: programs `data`, or erases where it is NULL. */
void mcu_reflash(struct mcu *m, uint32_t offset, const uint8_t *data, uint32_t length);

#pragma GCC visibility pop
