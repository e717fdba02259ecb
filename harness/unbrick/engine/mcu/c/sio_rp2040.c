/* The single-cycle IO of an RP2040 as core 0 has it: outputs, spinlocks, the divider, the mailbox
 * of the other core, which sleeps. Source: the RP2040 data sheet, section 2.3.1. The interpolators
 * have no model. */
#include "devices.h"

enum {
    CPUID = 0x00,
    GPIO_IN = 0x04,
    GPIO_HI_IN = 0x08,
    GPIO_OUT = 0x10, /* then what sets, clears and flips it; in the same way OE, and both again */
    GPIO_END = 0x50,
    FIFO_ST = 0x50,
    FIFO_WR = 0x54,
    FIFO_RD = 0x58,
    SPINLOCK_ST = 0x5c,
    UDIVIDEND = 0x60,
    UDIVISOR = 0x64,
    SDIVIDEND = 0x68,
    SDIVISOR = 0x6c,
    QUOTIENT = 0x70,
    REMAINDER = 0x74,
    DIV_CSR = 0x78,
    SPINLOCKS = 0x100,
    SIO_END = 0x180
};
enum { FIFO_ST_ROE = 8, FIFO_ST_WOF = 4, FIFO_ST_RDY = 2, FIFO_DEPTH = 8 };
enum { CSR_READY = 1, CSR_DIRTY = 2 };
enum { QSPI_PINS = 0x3e }; /* but for the clock they are pulled up */

struct sio {
    struct device device;
    uint32_t outputs[4]; /* OUT, OE, and those of the flash's pins */
    uint32_t locks, sent, errors;
    uint32_t dividend, divisor, quotient, remainder, csr;
};

/* A divisor of 0 is no error. */
static void divide(struct sio *s, bool is_signed) {
    bool minus = is_signed && s->dividend >> 31;
    if (!s->divisor) {
        s->quotient = minus ? 1 : UINT32_MAX;
        s->remainder = s->dividend;
    } else if (is_signed) {
        int64_t dividend = (int32_t)s->dividend, divisor = (int32_t)s->divisor;
        s->quotient = (uint32_t)(dividend / divisor);
        s->remainder = (uint32_t)(dividend % divisor);
    } else {
        s->quotient = s->dividend / s->divisor;
        s->remainder = s->dividend % s->divisor;
    }
    s->csr = CSR_READY | CSR_DIRTY;
}

/* Reading one takes it; 0: it is taken. */
static uint32_t take_lock(struct sio *s, uint32_t lock) {
    uint32_t bit = 1u << lock, free = ~s->locks & bit;
    s->locks |= bit;
    return free;
}

static uint32_t read_register(struct sio *s, uint32_t reg) {
    switch (reg) {
    case CPUID:
        return 0;
    case GPIO_IN:
        return s->outputs[0] & s->outputs[1];
    case GPIO_HI_IN:
        return QSPI_PINS;
    case FIFO_ST:
        return s->errors | (s->sent < FIFO_DEPTH ? (uint32_t)FIFO_ST_RDY : 0);
    case FIFO_RD:
        s->errors |= FIFO_ST_ROE;
        return 0;
    case SPINLOCK_ST:
        return s->locks;
    case UDIVIDEND:
    case SDIVIDEND:
        return s->dividend;
    case UDIVISOR:
    case SDIVISOR:
        return s->divisor;
    case QUOTIENT:
        s->csr &= ~(uint32_t)CSR_DIRTY;
        return s->quotient;
    case REMAINDER:
        return s->remainder;
    case DIV_CSR:
        return s->csr;
    default:
        return reg >= SPINLOCKS                    ? take_lock(s, (reg - SPINLOCKS) / 4)
               : reg >= GPIO_OUT && reg < GPIO_END ? s->outputs[(reg - GPIO_OUT) / 16]
                                                   : 0;
    }
}

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    uint32_t reg = offset & ~3u;
    bool unknown = (reg > DIV_CSR && reg < SPINLOCKS) || reg >= SIO_END;
    return unknown ? plain_read(m, d->base + offset, size)
                   : part_of(read_register((struct sio *)d, reg), offset, size);
}

static void write_output(struct sio *s, uint32_t at, uint32_t value) {
    enum { PLAIN, SET, CLEAR, FLIP };
    uint32_t *output = &s->outputs[at / 16];
    switch (at / 4 % 4) {
    case PLAIN:
        *output = value;
        break;
    case SET:
        *output |= value;
        break;
    case CLEAR:
        *output &= ~value;
        break;
    default:
        *output ^= value;
        break;
    }
}

static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct sio *s = (struct sio *)d;
    uint32_t reg = offset & ~3u, word = with_part(0, offset, size, value);
    if (reg >= GPIO_OUT && reg < GPIO_END) {
        write_output(s, reg - GPIO_OUT, word);
    } else if (reg == FIFO_ST) {
        s->errors &= ~word;
    } else if (reg == FIFO_WR) { /* nobody takes it */
        s->errors |= s->sent == FIFO_DEPTH ? (uint32_t)FIFO_ST_WOF : 0;
        s->sent += s->sent < FIFO_DEPTH;
    } else if (reg == UDIVIDEND || reg == SDIVIDEND) {
        s->dividend = word;
        divide(s, reg == SDIVIDEND);
    } else if (reg == UDIVISOR || reg == SDIVISOR) {
        s->divisor = word;
        divide(s, reg == SDIVISOR);
    } else if (reg == QUOTIENT || reg == REMAINDER) { /* what was before an interrupt comes back */
        *(reg == QUOTIENT ? &s->quotient : &s->remainder) = word;
        s->csr = CSR_READY | CSR_DIRTY;
    } else if (reg >= SPINLOCKS && reg < SIO_END) {
        s->locks &= ~(1u << (reg - SPINLOCKS) / 4);
    } else if (reg > DIV_CSR) {
        plain_write(m, d->base + offset, size, value);
    }
}

static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct sio *s = (struct sio *)d;
    (void)m;
    (void)kind;
    memset(s->outputs, 0, sizeof s->outputs);
    s->locks = s->sent = s->errors = 0;
    s->dividend = s->divisor = s->quotient = s->remainder = 0;
    s->csr = CSR_READY;
}

void sio_rp2040_add(struct mcu *m, const struct device_place *place) {
    struct sio *s = device_memory(m, sizeof *s);
    s->device = (struct device){.base = place->base,
                                .size = 0x1000,
                                .read = read,
                                .write = write,
                                .reset = reset,
                                .free = device_free};
    mcu_add_device(m, &s->device);
}
