/* The flash of STM32H7 with two banks: flash words of 256 bits with ECC, sectors, option words.
 * Each bank has registers of its own; they change places with the banks. Source: RM0433 chapter 4;
 * for the fields of registers the header stm32h743xx.h of STMicroelectronics' cmsis-device-h7. That
 * the core gets a bus fault for a wrong word, and that a word can be programmed over another one,
 * is told by Zephyr's issue 33140. The times are those of PSIZE 64. A bus error after a wrong key
 * is told as a fault. */
#include "devices.h"

enum {
    ACR = 0x00,
    KEYR = 0x04, /* of bank 2 all are 0x100 further */
    OPTKEYR = 0x08,
    CR = 0x0c,
    SR = 0x10,
    CCR = 0x14,
    OPTCR = 0x18,
    OPTSR_CUR = 0x1c,
    OPTCCR = 0x24,
    ECC_FA = 0x60,
    OF_BANK_2 = 0x100
};
enum { SR_BSY = 1u << 0, SR_WBNE = 1u << 1, SR_QW = 1u << 2 };
enum {
    EOP = 1u << 16, /* these have the same place in SR, CR (their interrupt) and CCR */
    WRPERR = 1u << 17,
    PGSERR = 1u << 18,
    STRBERR = 1u << 19,
    INCERR = 1u << 21,
    DBECCERR = 1u << 26
};
#define EVENTS 0x1fef0000u
enum {
    CR_LOCK = 1u << 0,
    CR_PG = 1u << 1,
    CR_SER = 1u << 2,
    CR_BER = 1u << 3,
    CR_PSIZE = 3u << 4,
    CR_FW = 1u << 6,
    CR_START = 1u << 7,
    CR_SNB_SHIFT = 8
};
#define CR_ERASES ((uint32_t)CR_SER | CR_BER)
#define CR_KINDS (CR_ERASES | CR_PG)
#define CR_SETTINGS (CR_KINDS | CR_PSIZE | EVENTS | 0x8700u)
#define CR_RESET ((uint32_t)CR_LOCK | CR_PSIZE)
enum { OPTCR_LOCK = 1u << 0, OPTCR_START = 1u << 1, OPTCR_MER = 1u << 4 };
#define SWAP_BANK (1u << 31)      /* in OPTSR, and as it is in force in OPTCR */
enum { OPTCHANGEERR = 1u << 30 }; /* in OPTSR_CUR and OPTCCR */
enum { ECC_UNIT_SHIFT = 5 };      /* ECC_FA counts flash words */
#define ACR_RESET 0x37u
#define FLASH_WORD 32u /* bytes */
#define BANKS 2u

static const struct option_word WORDS[] = {
    {OPTSR_CUR, 0x20, 0x0006aad0}, /* OPTSR */
    {0x40, 0x44, 0x1ff00800},      /* BOOT */
    {0x38, 0x3c, 0x00000000},      /* WPSN1 */
    {0x138, 0x13c, 0x00000000}     /* WPSN2 */
};
enum { WORD_OPTSR, WORD_WPSN1 = 2 };

struct bank {
    struct flash_job job;
    struct write_buffer buffer;
    uint32_t base, sr, cr, ecc_fa; /* base: of its cells */
    enum flash_lock lock;
};

struct h7 {
    struct device device;
    struct flash main;
    struct option_words options;
    struct bank banks[BANKS];
    uint32_t interrupt, program_us, erase_us, bank_erase_us, sector_size, bank_size;
    uint32_t acr, optcr, option_error;
    enum flash_lock option_lock;
};

static void show(struct mcu *m, struct h7 *f) {
    const struct bank *b = f->banks;
    nvic_set_line(m, f->interrupt, (b[0].sr & b[0].cr & EVENTS) || (b[1].sr & b[1].cr & EVENTS));
}

static void refuse(struct mcu *m, struct bank *b, uint32_t error, uint32_t kind, uint32_t offset,
                   uint32_t detail) {
    buffer_clear(&b->buffer);
    b->sr |= error;
    fault(m, kind, offset, detail);
}

static bool is_protected(const struct h7 *f, const struct bank *b, uint32_t offset,
                         uint32_t length) {
    uint32_t word = f->options.now[WORD_WPSN1 + b->base / f->bank_size];
    for (uint32_t at = offset - b->base; at < offset - b->base + length; at += f->sector_size) {
        if (!(word >> at / f->sector_size & 1)) {
            return true;
        }
    }
    return false;
}

static void settle(struct mcu *m, struct device *d) {
    struct h7 *f = (struct h7 *)d;
    for (uint32_t i = 0; i < BANKS; i++) {
        if (job_settle(m, &f->banks[i].job)) {
            f->banks[i].sr |= EOP;
            show(m, f);
        }
    }
}

static void wait(struct mcu *m, struct h7 *f, struct bank *b) {
    job_wait(m, &b->job);
    settle(m, &f->device);
}

static void erase(struct mcu *m, struct h7 *f, struct bank *b, uint32_t offset, uint32_t length,
                  uint32_t us) {
    if (is_protected(f, b, offset, length)) {
        refuse(m, b, WRPERR, FAULT_FLASH_PROTECTED, f->main.first + offset, b->cr);
    } else {
        job_begin(m, &b->job, OP_ERASE, &f->main, offset, length, (uint64_t)us * NS_PER_US);
    }
}

static void start(struct mcu *m, struct h7 *f, struct bank *b) {
    uint32_t kind = b->cr & CR_KINDS, offset = (b->cr >> CR_SNB_SHIFT & 7) * f->sector_size;
    if (kind == CR_SER && offset < f->bank_size) {
        erase(m, f, b, b->base + offset, f->sector_size, f->erase_us);
    } else if (kind & CR_BER && !(kind & CR_PG)) { /* also with SER */
        erase(m, f, b, b->base, f->bank_size, f->bank_erase_us);
    } else {
        refuse(m, b, PGSERR, FAULT_FLASH_COMMAND, NOWHERE, b->cr);
    }
}

static void program(struct mcu *m, struct h7 *f, struct bank *b) {
    uint32_t offset = b->buffer.offset;
    memcpy(b->job.data, b->buffer.data, FLASH_WORD);
    buffer_clear(&b->buffer);
    if (is_protected(f, b, offset, FLASH_WORD)) {
        refuse(m, b, WRPERR, FAULT_FLASH_PROTECTED, f->main.first + offset, b->cr);
        return;
    }
    program_ecc_word(m, &f->main, &b->job, offset, FLASH_WORD, f->program_us);
}

static void write_cr(struct mcu *m, struct h7 *f, struct bank *b, uint32_t value) {
    if (b->job.busy) { /* the bus waits */
        wait(m, f, b);
    }
    if (b->cr & CR_LOCK) {
        if (value & (CR_KINDS | CR_START | CR_FW)) {
            fault(m, FAULT_FLASH_LOCKED, NOWHERE, value);
        }
        return;
    }
    b->cr = value & (CR_SETTINGS | CR_LOCK);
    if (value & CR_LOCK) {
        b->lock = LOCKED;
    }
    if (value & CR_START) {
        start(m, f, b);
    } else if (value & CR_FW && b->buffer.filled && b->cr & CR_PG) {
        program(m, f, b);
    }
}

static void write_optcr(struct mcu *m, struct h7 *f, uint32_t value) {
    if (f->optcr & OPTCR_LOCK) {
        if (value & (OPTCR_START | OPTCR_MER)) {
            fault(m, FAULT_FLASH_LOCKED, NOWHERE, value);
        }
        return;
    }
    if (value & OPTCR_LOCK) {
        f->optcr |= OPTCR_LOCK;
        f->option_lock = LOCKED;
    }
    for (uint32_t i = 0; i < BANKS && value & (OPTCR_START | OPTCR_MER); i++) {
        wait(m, f, &f->banks[i]);
        if (value & OPTCR_MER && !(f->banks[i].cr & CR_LOCK)) {
            erase(m, f, &f->banks[i], f->banks[i].base, f->bank_size, f->bank_erase_us);
        }
    }
    if (value & OPTCR_START && !(value & OPTCR_MER)) {
        options_program(m, &f->options, &f->banks[0].job);
    }
}

/* The bank whose registers these are, and their offset in those of bank 1. */
static struct bank *find_bank(struct h7 *f, uint32_t *offset) {
    bool second = *offset & OF_BANK_2;
    *offset &= ~(uint32_t)OF_BANK_2;
    return &f->banks[second != (f->main.swapped != 0)];
}

/* The option word of a register. Those of a bank change places with it; the others have two. */
static uint32_t *find_option(struct h7 *f, uint32_t offset, bool *writable) {
    bool of_bank = (offset & 0xf8) == 0x38;
    if (of_bank && f->main.swapped) {
        offset ^= OF_BANK_2;
    }
    return options_find(&f->options, of_bank ? offset : offset & ~(uint32_t)OF_BANK_2, writable);
}

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    struct h7 *f = (struct h7 *)d;
    bool writable;
    uint32_t reg = offset & ~3u;
    const uint32_t *option = find_option(f, reg, &writable);
    if (option) {
        bool is_status = option == &f->options.now[WORD_OPTSR];
        return part_of(*option | (is_status ? f->option_error : 0), offset, size);
    }
    const struct bank *b = find_bank(f, &reg);
    switch (reg) {
    case ACR:
        return part_of(f->acr, offset, size);
    case KEYR:
    case OPTKEYR:
    case CCR:
    case OPTCCR:
        return 0;
    case CR:
        return part_of(b->cr | (b->job.busy && b->job.kind == OP_ERASE ? (uint32_t)CR_START : 0),
                       offset, size);
    case SR:
        return part_of(b->sr | (b->job.busy ? (uint32_t)SR_BSY | SR_QW : 0) |
                           (b->buffer.filled ? (uint32_t)SR_WBNE : 0),
                       offset, size);
    case OPTCR:
        return part_of(f->optcr | (f->main.swapped ? SWAP_BANK : 0), offset, size);
    case ECC_FA:
        return part_of(b->ecc_fa, offset, size);
    default:
        return plain_read(m, d->base + offset, size);
    }
}

static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct h7 *f = (struct h7 *)d;
    bool writable;
    uint32_t reg = offset & ~3u, *option = find_option(f, reg, &writable);
    if (option && writable) {
        value = with_part(*option, offset, size, value);
        options_write(m, option, value, f->optcr & OPTCR_LOCK);
    }
    if (option) {
        return;
    }
    struct bank *b = find_bank(f, &reg);
    switch (reg) {
    case ACR:
        f->acr = with_part(f->acr, offset, size, value);
        break;
    case KEYR:
        take_flash_key(m, &b->lock, value);
        b->cr &= ~(b->lock == OPEN ? (uint32_t)CR_LOCK : 0);
        break;
    case OPTKEYR:
        take_option_key(m, &f->option_lock, value);
        f->optcr &= ~(f->option_lock == OPEN ? (uint32_t)OPTCR_LOCK : 0);
        break;
    case CR:
        write_cr(m, f, b, with_part(b->cr, offset, size, value));
        break;
    case CCR:
        b->sr &= ~(value << 8 * (offset & 3) & EVENTS);
        break;
    case OPTCR:
        write_optcr(m, f, with_part(f->optcr, offset, size, value));
        break;
    case OPTCCR:
        f->option_error &= ~with_part(0, offset, size, value);
        break;
    case SR:
    case ECC_FA:
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
    struct h7 *f = (struct h7 *)flash->controller;
    struct bank *b = &f->banks[offset / f->bank_size];
    uint32_t at = flash->first + offset;
    if (b->job.busy) { /* the bus waits */
        wait(m, f, b);
    }
    if (b->cr & CR_LOCK) {
        refuse(m, b, PGSERR, FAULT_FLASH_LOCKED, at, (uint32_t)value);
    } else if ((b->cr & CR_KINDS) != CR_PG) {
        refuse(m, b, PGSERR, FAULT_FLASH_STRAY, at, (uint32_t)value);
    } else {
        switch (buffer_take(&b->buffer, offset, size, value)) {
        case BUFFER_ELSEWHERE:
            refuse(m, b, INCERR, FAULT_FLASH_WIDTH, at, size);
            break;
        case BUFFER_TWICE:
            refuse(m, b, STRBERR, FAULT_FLASH_WIDTH, at, size);
            break;
        case BUFFER_FULL:
            program(m, f, b);
            break;
        case BUFFER_TOOK:
            break;
        }
    }
    settle(m, &f->device);
    show(m, f);
}

/* A read of a flash word with a wrong ECC: the first one is told. The core gets a bus fault. */
static void on_broken(struct mcu *m, struct flash *flash, uint32_t offset) {
    struct h7 *f = (struct h7 *)flash->controller;
    struct bank *b = &f->banks[offset / f->bank_size];
    if (!(b->sr & DBECCERR)) {
        b->sr |= DBECCERR;
        b->ecc_fa = (offset - b->base) >> ECC_UNIT_SHIFT;
        show(m, f);
    }
}

static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct h7 *f = (struct h7 *)d;
    for (uint32_t i = 0; i < BANKS; i++) {
        struct bank *b = &f->banks[i];
        job_reset(m, &b->job, kind);
        buffer_clear(&b->buffer);
        b->sr = b->ecc_fa = 0;
        b->cr = CR_RESET;
        b->lock = LOCKED;
    }
    f->acr = ACR_RESET;
    f->optcr = OPTCR_LOCK;
    f->option_lock = LOCKED;
    f->option_error = options_load(m, &f->options) ? 0 : (uint32_t)OPTCHANGEERR;
    flash_swap(m, &f->main, f->options.now[WORD_OPTSR] & SWAP_BANK ? f->bank_size : 0);
    show(m, f);
}

static uint64_t next(struct mcu *m, struct device *d) {
    const struct h7 *f = (const struct h7 *)d;
    (void)m;
    return sooner(job_next(&f->banks[0].job), job_next(&f->banks[1].job));
}

static void lose_power(struct mcu *m, struct device *d) {
    struct h7 *f = (struct h7 *)d;
    job_tear(m, &f->banks[0].job);
    job_tear(m, &f->banks[1].job);
}

void flash_stm32h7_add(struct mcu *m, const struct device_place *place) {
    assert(place->flash && place->flash[0].size % BANKS == 0);
    assert(!place->flash[0].check_unit || place->flash[0].check_unit == FLASH_WORD);
    struct h7 *f = device_memory(m, sizeof *f);
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
    for (uint32_t i = 0; i < BANKS; i++) {
        f->banks[i].base = i * f->bank_size;
        f->banks[i].job.bank = f->bank_size;
        f->banks[i].buffer.size = FLASH_WORD;
    }
    f->main.store = store;
    f->main.on_broken = on_broken;
    f->main.broken_faults = true;
    f->options.words = WORDS;
    f->options.count = sizeof WORDS / sizeof *WORDS;
    f->options.erase_us = f->erase_us;
    f->options.program_us = f->program_us;
    mcu_add_device(m, &f->device);
    flash_add_region(m, &f->main, &place->flash[0], &f->device);
    options_add(m, &f->options, &place->flash[1], &f->device);
}
