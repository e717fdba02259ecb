/* The parts of a microcontroller, as they know each other: one file for each part. The host knows
 * mcu.h alone.
 *
 *   mcu.c         the whole: power, reset, the run loop, virtual time
 *   memory.c      Unicorn's pages, the bus, bit-banding, code to forget
 *   exceptions.c  entry, return, faults and their escalation
 *   application.c what an application core has besides
 *   nvic.c        interrupts, their priorities
 *   scs.c         SysTick, SCB, DWT, MPU, CPACR
 *   trace.c       operations, faults
 *   check.c       check cells: what reads of broken cells do
 *   reads.c       which first contents of the flash had a say
 *   joins.c       sessions that come to where another one has been
 *   plain.c       registers that nobody models
 *   semihosting.c what BKPT 0xAB asks for
 *   debug.c       what a debugger wants: steps, breakpoints, what is watched
 *   line.c        serial lines between a UART and the host
 *   flash_*.c, uart_*.c, ...  devices: one file for each kind
 *
 * A device embeds `struct device` first in its own. Its constructor is exported, takes `struct mcu
 * *` and plain numbers (addresses, interrupts, times), fills in what it needs and calls
 * mcu_add_device(). A flash controller has a `struct flash` for each of its regions, too. */
#pragma once

#include "mcu.h"
#include "queue.h"

#define NEVER UINT64_MAX
#define NOWHERE UINT32_MAX

/* Power came / SYSRESETREQ, watchdog / the pin / the supply was too low, and RAM kept its contents.
 */
enum reset_kind { RESET_POWER, RESET_SYSTEM, RESET_PIN, RESET_BROWN_OUT };
/* Why the chip resets itself. */
enum reset_cause { CAUSE_SOFTWARE, CAUSE_WATCHDOG, CAUSE_WINDOW, CAUSE_OPTIONS, CAUSE_STANDBY };

/* Registers. Every access takes `access_ns` before it takes place. `value` and what read() returns
 * are `size` bytes (1, 2 or 4), at `offset`, which is a multiple of `size`. */
struct device {
    uint32_t base, size; /* bytes; devices do not overlap, and may be as small as 4 bytes */
    uint32_t (*read)(struct mcu *m, struct device *d, uint32_t offset, unsigned size);
    void (*write)(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value);
    void (*reset)(struct mcu *m, struct device *d, enum reset_kind kind);
    /* When it next does something by itself that interrupts or that the host sees; NEVER when only
     * a read would see it. Asked again after each of its reads, writes, settles and resets, and
     * when the host pushed bytes. May be NULL. */
    uint64_t (*next)(struct mcu *m, struct device *d);
    /* Does what is due by mcu_now(m). Called when next() has come, before each read and write, and
     * before the host looks. May be NULL. */
    void (*settle)(struct mcu *m, struct device *d);
    /* Power goes: what is under way is torn or never was. May be NULL. */
    void (*lose_power)(struct mcu *m, struct device *d);
    bool outside;                   /* in a chip of its own, which a brown-out leaves alone */
    void (*free)(struct device *d); /* its memory; may be NULL */
    uint64_t due;                   /* the core's: what next() said */
};

void mcu_add_device(struct mcu *m, struct device *d);

/* A region of flash: read and executed like memory, stored to by way of its controller. Regions of
 * at least 4096 bytes, at a multiple of that, may be executed. `cells` is the host's. */
struct flash {
    uint32_t base, size;
    uint32_t alias;   /* a second address of the same cells; NOWHERE: none */
    uint32_t swapped; /* bytes of a bank while its two banks have each other's addresses, or 0 */
    uint8_t *cells;
    /* A store of 1, 2, 4 or 8 bytes by the firmware. Changes cells only after flash_begin(). NULL:
     * it is apart. */
    void (*store)(struct mcu *m, struct flash *f, uint32_t offset, unsigned size, uint64_t value);
    struct device *controller; /* settled before each store */
    uint32_t first; /* set by mcu_add_flash(): offset of its first byte in the flash image */
    bool outside;   /* in a chip of its own: code in other flash goes on while it is busy */
    bool hidden;    /* it does not show its cells: reads are the controller's; see flash_hide() */
    bool apart;     /* in a chip of its own, which no address leads to; the host's has `base` */

    /* Its check cells (ECC), which follow in the flash image: a byte for each `check_unit` bytes;
     * NULL: it has none. Only flash that may be executed can have them. */
    uint8_t *check;
    uint32_t check_unit;
    /* Code has read or executed a unit whose check cell is wrong. */
    void (*on_broken)(struct mcu *m, struct flash *f, uint32_t offset);
    bool broken_faults; /* such a read is a bus fault */
};

/* In the order in which they are added, regions make up the flash image that the host sees. */
void mcu_add_flash(struct mcu *m, struct flash *f);

/* Its two banks of so many bytes have each other's addresses from now on; 0: their own. Offsets in
 * it and in the flash image stay those of the cells. The core must be at a reset. */
void flash_swap(struct mcu *m, struct flash *f, uint32_t bank);

/* An operation begins. `offset` is in the flash image (f->first + offset in the region); `data` is
 * what is to be programmed, NULL for an erase; `ns` how long it takes (the controller lets it
 * pass, with mcu_elapse() or by being busy). False: the armed cut has come: nothing may change. */
bool flash_begin(struct mcu *m, uint32_t kind, uint32_t offset, uint32_t length,
                 const uint8_t *data, uint64_t ns);
/* The controller looks at cells, and does something else for what they hold; `offset` in the
 * region. */
void note_cells(struct mcu *m, const struct flash *f, uint32_t offset, uint32_t length);
/* Whether one comes in the middle of the operation that has just begun. */
bool brown_out_is_due(struct mcu *m);
void mcu_brown_out(struct mcu *m);
/* An erase has ended; `offset` in the flash image. */
void note_erase(struct mcu *m, uint32_t offset, uint32_t length);
/* From now on loads are read by the device at the same address, or find the cells again. Code that
 * runs there has lost what it runs from. */
void flash_hide(struct mcu *m, struct flash *f, bool hidden);
/* Cells were changed; `offset` in the flash image. */
void flash_changed(struct mcu *m, uint32_t offset, uint32_t length);

/* The check cells of whole units. Where these are programmed or erased, so are their check cells,
 * before flash_changed(). */
void check_find(const struct flash *f, const uint8_t *data, uint32_t length, uint8_t *checks);
void check_program(struct flash *f, uint32_t offset, const uint8_t *data, uint32_t length);
void check_erase(struct mcu *m, struct flash *f, uint32_t offset, uint32_t length);
/* Whether the check cells of a range are not those of its cells. */
bool check_is_broken(const struct flash *f, uint32_t offset, uint32_t length);

/* The firmware did what it must not. */
void fault(struct mcu *m, uint32_t kind, uint32_t address, uint32_t detail);

/* Time that the core is stalled for. */
void mcu_elapse(struct mcu *m, uint64_t ns);

/* Something outside of `d`'s own reads and writes changed when it is due. */
void mcu_look_again(struct mcu *m, struct device *d);

/* The chip resets itself, before the next basic block; the first of these as by SYSRESETREQ. */
void mcu_reset_system(struct mcu *m);
void mcu_reset_for(struct mcu *m, enum reset_cause cause);
/* Why, while devices are reset by RESET_SYSTEM. */
enum reset_cause reset_cause(const struct mcu *m);
/* Whether what needs the supply is lost. */
static inline bool lost_supply(enum reset_kind kind) {
    return kind == RESET_POWER || kind == RESET_BROWN_OUT;
}

/* Memory as a DMA sees it: RAM and flash, not devices. False: it is another place. */
bool dma_read(struct mcu *m, uint32_t address, void *data, uint32_t length);
bool dma_write(struct mcu *m, uint32_t address, const void *data, uint32_t length);

/* The non-maskable interrupt comes. */
void nvic_pend_nmi(struct mcu *m);

/* The level of an interrupt line, counted from 0 as the NVIC does; it pends while it is high and
 * the handler is not active. */
void nvic_set_line(struct mcu *m, unsigned interrupt, bool high);

/* A register that nobody models: it holds what was written, and reads in vain are counted. For
 * those registers of a device that it does not know. */
uint32_t plain_read(struct mcu *m, uint32_t address, unsigned size);
void plain_write(struct mcu *m, uint32_t address, unsigned size, uint32_t value);
/* What it holds, for another device. */
uint32_t plain_look(struct mcu *m, uint32_t address);
/* What such a register reads as after a reset, if not 0. */
void plain_set_reset(struct mcu *m, uint32_t address, uint32_t value);

/* A serial line. The UART embeds it, and says how long a byte takes. */
struct line {
    struct byte_queue from_host, to_host;
    uint64_t byte_ns;       /* of one byte from the host; the UART keeps it right */
    uint64_t last;          /* when the newest byte from the host has arrived */
    uint64_t watched, idle; /* when the host wants to look at what was sent */
    size_t overruns; /* bytes that the UART lost since the firmware was late; it counts them */
    struct device *device;
};

void mcu_add_line(struct mcu *m, struct line *l, struct device *uart);
/* When the next byte from the host has arrived, which may be past; NEVER: none is under way. */
uint64_t line_next(const struct line *l);
/* Takes that byte; it must have arrived. */
uint8_t line_take(struct mcu *m, struct line *l);
/* The firmware's byte, which is finished at time `done`. */
void line_send(struct mcu *m, struct line *l, uint8_t byte, uint64_t done);

static inline uint16_t get16(const uint8_t *p) {
    return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t get32(const uint8_t *p) {
    return get16(p) | (uint32_t)get16(p + 2) << 16;
}

static inline void put16(uint8_t *p, uint16_t v) {
    p[0] = (uint8_t)v;
    p[1] = (uint8_t)(v >> 8);
}

static inline void put32(uint8_t *p, uint32_t v) {
    put16(p, (uint16_t)v);
    put16(p + 2, (uint16_t)(v >> 16));
}

static inline uint64_t later(uint64_t a, uint64_t c) {
    return a > c ? a : c;
}

static inline uint64_t sooner(uint64_t a, uint64_t c) {
    return a < c ? a : c;
}

#define NS_PER_S 1000000000u

/* Ticks of a clock in a time, and the time that so many take (rounded up). */
static inline uint64_t clock_ticks(uint64_t ns, uint32_t hz) {
    return ns / NS_PER_S * hz + ns % NS_PER_S * hz / NS_PER_S;
}

static inline uint64_t clock_ns(uint64_t ticks, uint32_t hz) {
    return ticks / hz * NS_PER_S + (ticks % hz * NS_PER_S + hz - 1) / hz;
}

/* The part of an aligned word that an access of `size` bytes at `offset` reads. */
static inline uint32_t part_of(uint32_t word, uint32_t offset, unsigned size) {
    word >>= 8 * (offset & 3);
    return size == 4 ? word : word & ((1u << 8 * size) - 1);
}

/* The aligned word after such a write. */
static inline uint32_t with_part(uint32_t word, uint32_t offset, unsigned size, uint32_t value) {
    uint32_t mask = (size == 4 ? UINT32_MAX : (1u << 8 * size) - 1) << 8 * (offset & 3);
    return (word & ~mask) | (value << 8 * (offset & 3) & mask);
}
