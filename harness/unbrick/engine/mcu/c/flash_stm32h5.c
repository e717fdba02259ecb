/* The flash of STM32H5: quad words with ECC, sectors in two banks that can change places, option
 * words. The core is in one state all the time: secure if the option TZEN says so, which then has
 * the secure registers, and otherwise those of the non-secure state. Source: RM0481 chapter 7, and
 * for the fields of registers the CMSIS header stm32h563xx.h and stm32h5xx_hal_flash_ex.c of
 * STMicroelectronics (BSD-3-Clause). A bus error after a wrong key is told as a fault. */
#include "devices.h"

enum {
    ACR = 0x00,
    NSKEYR = 0x04, /* of the secure state: 4 bytes further, as those of NSSR, NSCR and NSCCR */
    OPTKEYR = 0x0c,
    OPTCR = 0x1c,
    NSSR = 0x20,
    NSCR = 0x28,
    NSCCR = 0x30,
    ECCDETR = 0x104
};
enum { SR_BSY = 1u << 0, SR_WBNE = 1u << 1 };
enum {
    EOP = 1u << 16, /* these have the same place in SR, CR (their interrupt) and CCR */
    WRPERR = 1u << 17,
    PGSERR = 1u << 18,
    STRBERR = 1u << 19,
    INCERR = 1u << 20,
    OPTCHANGEERR = 1u << 23
};
#define EVENTS 0xff0000u
enum {
    CR_LOCK = 1u << 0,
    CR_PG = 1u << 1,
    CR_SER = 1u << 2,
    CR_BER = 1u << 3,
    CR_FW = 1u << 4,
    CR_START = 1u << 5,
    CR_SNB_SHIFT = 6,
    CR_MER = 1u << 15
};
#define CR_BKSEL (1u << 31)
#define CR_ERASES ((uint32_t)CR_SER | CR_BER | CR_MER)
#define CR_KINDS (CR_ERASES | CR_PG)
#define CR_SETTINGS (CR_KINDS | CR_BKSEL | EVENTS | 0x1fc0u)
enum { OPTCR_LOCK = 1u << 0, OPTCR_START = 1u << 1 };
#define SWAP_BANK (1u << 31) /* in OPTSR, and as it is in force in OPTCR */
#define ECCD (1u << 31)
enum { ECC_BANK = 1u << 22, ECC_UNIT_SHIFT = 4 }; /* ADDR_ECC counts quad words */
#define ACR_RESET 0x13u
#define QUAD_WORD 16u /* bytes */
#define BANKS 2u
#define GROUP 4u /* sectors that one bit of WRP protects while it is 0 */
#define TZEN_SHIFT 24
#define TZEN_ON 0xb4u

static const struct option_word WORDS[] = {
    {0x50, 0x54, 0x2d30edd8},  /* OPTSR */
    {0x70, 0x74, 0xc300007c},  /* OPTSR2 */
    {0x80, 0x84, 0x080000c3},  /* NSBOOTR */
    {0x88, 0x8c, 0x0c0000c3},  /* SECBOOTR */
    {0xe8, 0xec, 0x00000000},  /* WRP1R */
    {0x1e8, 0x1ec, 0x00000000} /* WRP2R */
};
enum { WORD_OPTSR, WORD_OPTSR2, WORD_WRP1 = 4 };

struct h5 {
    struct device device;
    struct flash main;
    struct option_words options;
    struct flash_job job;
    struct write_buffer buffer;
    uint32_t interrupt, program_us, erase_us, bank_erase_us, sector_size, bank_size;
    uint32_t acr, sr, cr, optcr, eccdetr;
    enum flash_lock lock, option_lock;
    bool secure; /* the state that the core is in */
};

static void show(struct mcu *m, struct h5 *f) {
    nvic_set_line(m, f->interrupt + f->secure, f->sr & f->cr & EVENTS);
    nvic_set_line(m, f->interrupt + !f->secure, false);
}

static void refuse(struct mcu *m, struct h5 *f, uint32_t error, uint32_t kind, uint32_t offset,
                   uint32_t detail) {
    buffer_clear(&f->buffer);
    f->sr |= error;
    fault(m, kind, offset, detail);
}

static bool is_protected(const struct h5 *f, uint32_t offset, uint32_t length) {
    for (uint32_t at = offset; at < offset + length; at += f->sector_size) {
        uint32_t word = f->options.now[WORD_WRP1 + at / f->bank_size];
        if (!(word >> at % f->bank_size / (GROUP * f->sector_size) & 1)) {
            return true;
        }
    }
    return false;
}

static void settle(struct mcu *m, struct device *d) {
    struct h5 *f = (struct h5 *)d;
    if (job_settle(m, &f->job)) {
        f->sr |= EOP;
        show(m, f);
    }
}

static void wait(struct mcu *m, struct h5 *f) {
    job_wait(m, &f->job);
    settle(m, &f->device);
}

static void erase(struct mcu *m, struct h5 *f, uint32_t offset, uint32_t length, uint32_t us) {
    if (is_protected(f, offset, length)) {
        refuse(m, f, WRPERR, FAULT_FLASH_PROTECTED, f->main.first + offset, f->cr);
    } else {
        job_begin(m, &f->job, OP_ERASE, &f->main, offset, length, (uint64_t)us * NS_PER_US);
    }
}

/* BKSEL means the bank itself, wherever its addresses are. */
static void start(struct mcu *m, struct h5 *f) {
    uint32_t bank = f->cr & CR_BKSEL ? f->bank_size : 0, sector = f->cr >> CR_SNB_SHIFT & 0x7f;
    uint32_t kind = f->cr & CR_KINDS, offset = sector * f->sector_size;
    if (kind == CR_SER && offset < f->bank_size) {
        erase(m, f, bank + offset, f->sector_size, f->erase_us);
    } else if (kind == CR_BER) {
        erase(m, f, bank, f->bank_size, f->bank_erase_us);
    } else if (kind == CR_MER) {
        erase(m, f, 0, f->main.size, f->bank_erase_us);
    } else {
        refuse(m, f, PGSERR, FAULT_FLASH_COMMAND, NOWHERE, f->cr);
    }
}

static void program(struct mcu *m, struct h5 *f) {
    uint32_t offset = f->buffer.offset;
    memcpy(f->job.data, f->buffer.data, QUAD_WORD);
    buffer_clear(&f->buffer);
    if (is_protected(f, offset, QUAD_WORD)) {
        refuse(m, f, WRPERR, FAULT_FLASH_PROTECTED, f->main.first + offset, f->cr);
        return;
    }
    program_ecc_word(m, &f->main, &f->job, offset, QUAD_WORD, f->program_us);
}

static void write_cr(struct mcu *m, struct h5 *f, uint32_t value) {
    if (f->job.busy) { /* the bus waits */
        wait(m, f);
    }
    if (f->cr & CR_LOCK) {
        if (value & (CR_KINDS | CR_START | CR_FW)) {
            fault(m, FAULT_FLASH_LOCKED, NOWHERE, value);
        }
        return;
    }
    f->cr = value & (CR_SETTINGS | CR_LOCK);
    if (value & CR_LOCK) {
        f->lock = LOCKED;
    }
    if (value & CR_START) {
        start(m, f);
    } else if (value & CR_FW && f->buffer.filled && f->cr & CR_PG) {
        program(m, f);
    }
}

static void write_optcr(struct mcu *m, struct h5 *f, uint32_t value) {
    if (f->optcr & OPTCR_LOCK) {
        if (value & OPTCR_START) {
            fault(m, FAULT_FLASH_LOCKED, NOWHERE, value);
        }
        return;
    }
    if (value & OPTCR_LOCK) {
        f->optcr |= OPTCR_LOCK;
        f->option_lock = LOCKED;
    }
    if (value & OPTCR_START) {
        wait(m, f);
        options_program(m, &f->options, &f->job);
        f->sr |= EOP;
    }
}

/* The registers of the state that the core is not in hold nothing. */
static uint32_t of_own_state(const struct h5 *f, uint32_t offset) {
    uint32_t own = offset - (f->secure ? 4 : 0);
    bool is_own = own == NSKEYR || own == NSSR || own == NSCR || own == NSCCR;
    bool is_other = !is_own && (offset == NSKEYR || offset == NSKEYR + 4 ||
                                (offset >= NSSR && offset <= NSCCR + 4));
    return is_own ? own : is_other ? NOWHERE : offset;
}

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    struct h5 *f = (struct h5 *)d;
    bool writable;
    const uint32_t *option = options_find(&f->options, offset & ~3u, &writable);
    if (option) {
        return part_of(*option, offset, size);
    }
    switch (of_own_state(f, offset & ~3u)) {
    case ACR:
        return part_of(f->acr, offset, size);
    case NSSR:
        return part_of(f->sr | (f->job.busy ? (uint32_t)SR_BSY : 0) |
                           (f->buffer.filled ? (uint32_t)SR_WBNE : 0),
                       offset, size);
    case NSCR:
        return part_of(f->cr | (f->job.busy && f->job.kind == OP_ERASE ? (uint32_t)CR_START : 0),
                       offset, size);
    case OPTCR:
        return part_of(f->optcr | (f->main.swapped ? SWAP_BANK : 0), offset, size);
    case ECCDETR:
        return part_of(f->eccdetr, offset, size);
    case NSKEYR:
    case NSCCR:
    case OPTKEYR:
    case NOWHERE:
        return 0;
    default:
        return plain_read(m, d->base + offset, size);
    }
}

static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct h5 *f = (struct h5 *)d;
    bool writable;
    uint32_t *option = options_find(&f->options, offset & ~3u, &writable);
    if (option && writable) {
        value = with_part(*option, offset, size, value);
        options_write(m, option, value, f->optcr & OPTCR_LOCK);
    }
    if (option) {
        return;
    }
    switch (of_own_state(f, offset & ~3u)) {
    case ACR:
        f->acr = with_part(f->acr, offset, size, value);
        break;
    case NSKEYR:
        take_flash_key(m, &f->lock, value);
        f->cr &= ~(f->lock == OPEN ? (uint32_t)CR_LOCK : 0);
        break;
    case OPTKEYR:
        take_option_key(m, &f->option_lock, value);
        f->optcr &= ~(f->option_lock == OPEN ? (uint32_t)OPTCR_LOCK : 0);
        break;
    case OPTCR:
        write_optcr(m, f, with_part(f->optcr, offset, size, value));
        break;
    case NSCR:
        write_cr(m, f, with_part(f->cr, offset, size, value));
        break;
    case NSCCR:
        f->sr &= ~(value << 8 * (offset & 3) & EVENTS);
        break;
    case ECCDETR:
        f->eccdetr = with_part(0, offset, size, value) & ECCD ? 0 : f->eccdetr;
        break;
    case NSSR:
    case NOWHERE:
        break;
    default:
        plain_write(m, d->base + offset, size, value);
        break;
    }
    settle(m, d);
    show(m, f);
}

static void store(struct mcu *m, struct flash *flash, uint32_t offset, unsigned size,
                  uint64_t value) {
    struct h5 *f = (struct h5 *)flash->controller;
    uint32_t at = flash->first + offset;
    if (f->job.busy) { /* the bus waits */
        wait(m, f);
    }
    if (f->cr & CR_LOCK) {
        refuse(m, f, PGSERR, FAULT_FLASH_LOCKED, at, (uint32_t)value);
    } else if ((f->cr & CR_KINDS) != CR_PG) {
        refuse(m, f, PGSERR, FAULT_FLASH_STRAY, at, (uint32_t)value);
    } else {
        switch (buffer_take(&f->buffer, offset, size, value)) {
        case BUFFER_ELSEWHERE:
            refuse(m, f, INCERR, FAULT_FLASH_WIDTH, at, size);
            break;
        case BUFFER_TWICE:
            refuse(m, f, STRBERR, FAULT_FLASH_WIDTH, at, size);
            break;
        case BUFFER_FULL:
            program(m, f);
            break;
        case BUFFER_TOOK:
            break;
        }
    }
    settle(m, &f->device);
    show(m, f);
}

/* A read of a quad word with a wrong ECC: the first one is told. */
static void on_broken(struct mcu *m, struct flash *flash, uint32_t offset) {
    struct h5 *f = (struct h5 *)flash->controller;
    if (!(f->eccdetr & ECCD)) {
        f->eccdetr = ECCD | offset % f->bank_size >> ECC_UNIT_SHIFT |
                     (offset < f->bank_size ? 0 : (uint32_t)ECC_BANK);
        nvic_pend_nmi(m);
    }
}

static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct h5 *f = (struct h5 *)d;
    job_reset(m, &f->job, kind);
    buffer_clear(&f->buffer);
    f->acr = ACR_RESET;
    f->eccdetr = 0;
    f->cr = CR_LOCK;
    f->optcr = OPTCR_LOCK;
    f->lock = f->option_lock = LOCKED;
    f->sr = options_load(m, &f->options) ? 0 : (uint32_t)OPTCHANGEERR;
    f->secure = f->options.now[WORD_OPTSR2] >> TZEN_SHIFT == TZEN_ON;
    flash_swap(m, &f->main, f->options.now[WORD_OPTSR] & SWAP_BANK ? f->bank_size : 0);
    show(m, f);
}

static uint64_t next(struct mcu *m, struct device *d) {
    (void)m;
    return job_next(&((struct h5 *)d)->job);
}

static void lose_power(struct mcu *m, struct device *d) {
    job_tear(m, &((struct h5 *)d)->job);
}

void flash_stm32h5_add(struct mcu *m, const struct device_place *place) {
    assert(place->flash && place->flash[0].size % BANKS == 0);
    assert(!place->flash[0].check_unit || place->flash[0].check_unit == QUAD_WORD);
    struct h5 *f = device_memory(m, sizeof *f);
    f->device = (struct device){.base = place->base,
                                .size = 0x400,
                                .read = read,
                                .write = write,
                                .reset = reset,
                                .next = next,
                                .settle = settle,
                                .lose_power = lose_power,
                                .free = device_free};
    f->interrupt = place->interrupt;
    f->program_us = place->numbers[0];
    f->erase_us = place->numbers[1];
    f->bank_erase_us = place->numbers[2];
    f->sector_size = place->numbers[3];
    f->bank_size = place->flash[0].size / BANKS;
    f->job.bank = f->bank_size;
    f->buffer.size = QUAD_WORD;
    f->main.store = store;
    f->main.on_broken = on_broken;
    f->options.words = WORDS;
    f->options.count = sizeof WORDS / sizeof *WORDS;
    f->options.erase_us = f->erase_us;
    f->options.program_us = f->program_us;
    mcu_add_device(m, &f->device);
    flash_add_region(m, &f->main, &place->flash[0], &f->device);
    options_add(m, &f->options, &place->flash[1], &f->device);
}
