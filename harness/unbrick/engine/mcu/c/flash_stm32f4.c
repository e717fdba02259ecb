/* The flash of STM32F4 with one bank: sectors, parallelism, option bytes. Source: RM0090 and
 * RM0383, whose bus error after a wrong key is told as a fault. */
#include "devices.h"

enum { ACR = 0x00, KEYR = 0x04, OPTKEYR = 0x08, SR = 0x0c, CR = 0x10, OPTCR = 0x14 };
enum {
    SR_EOP = 1u << 0,
    SR_OPERR = 1u << 1,
    SR_WRPERR = 1u << 4,
    SR_PGAERR = 1u << 5,
    SR_PGPERR = 1u << 6,
    SR_PGSERR = 1u << 7,
    SR_RDERR = 1u << 8,
    SR_BSY = 1u << 16
};
enum {
    CR_PG = 1u << 0,
    CR_SER = 1u << 1,
    CR_MER = 1u << 2,
    CR_SNB_SHIFT = 3,
    CR_PSIZE_SHIFT = 8,
    CR_STRT = 1u << 16,
    CR_EOPIE = 1u << 24,
    CR_ERRIE = 1u << 25
};
#define CR_LOCK (1u << 31)
#define CR_SETTINGS 0x0300037fu /* all but LOCK and STRT */
#define CR_COMMANDS ((uint32_t)CR_PG | CR_SER | CR_MER | CR_STRT)
enum { OPTCR_OPTLOCK = 1u << 0, OPTCR_OPTSTRT = 1u << 1, OPTCR_RDP_SHIFT = 8 };
#define OPTCR_USER 0xecu /* BOR_LEV, WDG_SW, nRST_STOP, nRST_STDBY */
#define OPTCR_NWRP 0x0fff0000u
#define OPTCR_SPRMOD (1u << 31)
#define OPTCR_BITS (OPTCR_USER | OPTCR_NWRP | 0xff00u | OPTCR_OPTLOCK | OPTCR_OPTSTRT)
#define RDP_LEVEL_0 0xaau
#define RDP_LEVEL_2 0xccu
#define ACR_SETTINGS 0x1f0fu
#define OPTIONS_SIZE 16u
#define OPTIONS_NWRP 8u /* offset */
#define SECTORS_MAX 12u

struct f4 {
    struct device device;
    struct flash main, options;
    struct flash_job job;
    uint32_t interrupt, program_us, erase_us[3], mass_erase_us, parallelism, has_rderr;
    uint32_t sectors, sector_start[SECTORS_MAX], sector_size[SECTORS_MAX];
    uint32_t acr, sr, cr, optcr;
    enum flash_lock lock, option_lock;
    bool half; /* the first word of a program of 64 bits came; it is in job.data */
    uint32_t half_offset;
};

static void show(struct mcu *m, struct f4 *f) {
    bool high = (f->sr & SR_EOP && f->cr & CR_EOPIE) || (f->sr & SR_OPERR && f->cr & CR_ERRIE);
    nvic_set_line(m, f->interrupt, high);
}

/* OPERR is set only while its interrupt is enabled (RM0090, 3.9.4). */
static void refuse(struct mcu *m, struct f4 *f, uint32_t error, uint32_t kind, uint32_t offset,
                   uint32_t detail) {
    f->sr |= error | (error && f->cr & CR_ERRIE ? (uint32_t)SR_OPERR : 0);
    fault(m, kind, offset, detail);
}

/* The option byte RDP, as it is and as it is to be. */
static uint32_t read_protection(struct mcu *m, const struct f4 *f) {
    note_cells(m, &f->options, 1, 1);
    return f->options.cells[1];
}

static uint32_t new_read_protection(const struct f4 *f) {
    return f->optcr >> OPTCR_RDP_SHIFT & 0xff;
}

/* A bit of nWRP that is 0 protects its sector; with SPRMOD one that is 1 does (PCROP). */
static bool is_protected(const struct f4 *f, uint32_t sector) {
    bool bit = f->optcr >> (16 + sector) & 1;
    return f->has_rderr && f->optcr & OPTCR_SPRMOD ? bit : !bit;
}

static bool is_any_protected(const struct f4 *f) {
    for (uint32_t sector = 0; sector < f->sectors; sector++) {
        if (is_protected(f, sector)) {
            return true;
        }
    }
    return false;
}

static uint32_t find_sector(const struct f4 *f, uint32_t offset) {
    uint32_t sector = 0;
    while (sector + 1 < f->sectors && offset >= f->sector_start[sector + 1]) {
        sector++;
    }
    return sector;
}

static uint32_t program_size(const struct f4 *f) {
    return 1u << (f->cr >> CR_PSIZE_SHIFT & 3);
}

/* Erasing takes longer when fewer bits are erased at a time: in percent, for x8, x16, x32, x64, of
 * sectors of 16, 64 and 128 KiB, and of all (data sheet, flash memory characteristics). */
static uint64_t erase_ns(const struct f4 *f, uint32_t length) {
    static const uint8_t percent[4][4] = {
        {160, 120, 100, 100}, {218, 127, 100, 100}, {200, 130, 100, 100}, {200, 137, 100, 100}};
    unsigned kind = length <= 0x4000 ? 0 : length <= 0x10000 ? 1 : length <= 0x20000 ? 2 : 3;
    uint64_t us = kind < 3 ? f->erase_us[kind] : f->mass_erase_us;
    return us * NS_PER_US / 100 * percent[kind][f->cr >> CR_PSIZE_SHIFT & 3];
}

static bool erase(struct mcu *m, struct f4 *f, struct flash *flash, uint32_t offset,
                  uint32_t length) {
    return job_begin(m, &f->job, OP_ERASE, flash, offset, length, erase_ns(f, length));
}

static void settle(struct mcu *m, struct device *d) {
    struct f4 *f = (struct f4 *)d;
    if (job_settle(m, &f->job)) {
        if (f->cr & CR_EOPIE) { /* EOP is set only then (RM0090, 3.9.4) */
            f->sr |= SR_EOP;
        }
        show(m, f);
    }
}

static void start(struct mcu *m, struct f4 *f) {
    uint32_t sector = f->cr >> CR_SNB_SHIFT & 0xf;
    if (f->cr & CR_SER && !(f->cr & CR_MER) && sector < f->sectors) {
        if (is_protected(f, sector)) {
            refuse(m, f, SR_WRPERR, FAULT_FLASH_PROTECTED, f->sector_start[sector], f->cr);
        } else {
            erase(m, f, &f->main, f->sector_start[sector], f->sector_size[sector]);
        }
    } else if (f->cr & CR_MER && !(f->cr & CR_SER)) {
        if (is_any_protected(f)) {
            refuse(m, f, SR_WRPERR, FAULT_FLASH_PROTECTED, 0, f->cr);
        } else {
            erase(m, f, &f->main, 0, f->main.size);
        }
    } else {
        refuse(m, f, SR_PGSERR, FAULT_FLASH_COMMAND, NOWHERE, f->cr | CR_STRT);
    }
}

/* What OPTCR says is erased and programmed; leaving level 1 erases the flash before (RM0090,
 * 3.7.3). The core stands still meanwhile. */
static void program_options(struct mcu *m, struct f4 *f) {
    uint8_t *data = f->job.data;
    f->optcr &= ~(uint32_t)OPTCR_OPTSTRT;
    if (read_protection(m, f) != RDP_LEVEL_0 && new_read_protection(f) == RDP_LEVEL_0) {
        if (!erase(m, f, &f->main, 0, f->main.size)) {
            return;
        }
        job_wait(m, &f->job);
        job_settle(m, &f->job);
    }
    if (!erase(m, f, &f->options, 0, f->options.size)) {
        return;
    }
    job_wait(m, &f->job);
    job_settle(m, &f->job);
    memset(data, 0xff, OPTIONS_SIZE);
    data[0] = (uint8_t)((f->optcr & OPTCR_USER) | 0x03);
    data[1] = (uint8_t)new_read_protection(f);
    put16(data + OPTIONS_NWRP, (uint16_t)((f->optcr & OPTCR_NWRP) >> 16 | 0x7000 |
                                          (f->optcr & OPTCR_SPRMOD ? 0x8000 : 0)));
    if (job_begin(m, &f->job, OP_PROGRAM, &f->options, 0, OPTIONS_SIZE,
                  (uint64_t)f->program_us * NS_PER_US)) {
        settle(m, &f->device);
    }
}

static void write_cr(struct mcu *m, struct f4 *f, uint32_t value) {
    if (f->job.busy) { /* the bus waits (RM0090, 3.9.5) */
        job_wait(m, &f->job);
        settle(m, &f->device);
    }
    if (f->cr & CR_LOCK) {
        if (value & CR_COMMANDS) {
            fault(m, FAULT_FLASH_LOCKED, NOWHERE, value);
        }
        return;
    }
    f->cr = value & (CR_SETTINGS | CR_LOCK);
    f->half = false;
    if (value & CR_LOCK) {
        f->lock = LOCKED;
    }
    if (value & CR_STRT) {
        start(m, f);
    }
}

static void write_optcr(struct mcu *m, struct f4 *f, uint32_t value) {
    uint32_t before = f->optcr;
    if (before & OPTCR_OPTLOCK) {
        if (value & ~before & ~(uint32_t)OPTCR_OPTLOCK) {
            fault(m, FAULT_FLASH_LOCKED, NOWHERE, value);
        }
        return;
    }
    if (f->job.busy) {
        job_wait(m, &f->job);
        settle(m, &f->device);
    }
    if (read_protection(m, f) == RDP_LEVEL_2) { /* for ever (RM0090, 3.7.3) */
        fault(m, FAULT_FLASH_PROTECTED, NOWHERE, value);
        return;
    }
    f->optcr = value & (OPTCR_BITS | (f->has_rderr ? OPTCR_SPRMOD : 0));
    if (value & OPTCR_OPTLOCK) {
        f->option_lock = LOCKED;
    }
    if (value & OPTCR_OPTSTRT) {
        program_options(m, f);
    }
}

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    struct f4 *f = (struct f4 *)d;
    switch (offset & ~3u) {
    case ACR:
        return part_of(f->acr, offset, size);
    case KEYR:
    case OPTKEYR:
        return 0;
    case SR:
        return part_of(f->sr | (f->job.busy ? (uint32_t)SR_BSY : 0), offset, size);
    case CR:
        return part_of(f->cr | (f->job.busy && f->job.kind == OP_ERASE ? (uint32_t)CR_STRT : 0),
                       offset, size);
    case OPTCR:
        return part_of(f->optcr, offset, size);
    default:
        return plain_read(m, d->base + offset, size);
    }
}

static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct f4 *f = (struct f4 *)d;
    switch (offset & ~3u) {
    case ACR:
        f->acr = with_part(f->acr, offset, size, value) & ACR_SETTINGS;
        break;
    case KEYR:
        take_flash_key(m, &f->lock, value);
        if (f->lock == OPEN) {
            f->cr &= ~CR_LOCK;
        }
        break;
    case OPTKEYR:
        take_option_key(m, &f->option_lock, value);
        if (f->option_lock == OPEN) {
            f->optcr &= ~(uint32_t)OPTCR_OPTLOCK;
        }
        break;
    case SR:
        value <<= 8 * (offset & 3);
        f->sr &= ~(value &
                   (SR_EOP | SR_OPERR | SR_WRPERR | SR_PGAERR | SR_PGPERR | SR_PGSERR | SR_RDERR));
        break;
    case CR:
        write_cr(m, f, with_part(f->cr, offset, size, value));
        break;
    case OPTCR:
        write_optcr(m, f, with_part(f->optcr, offset, size, value));
        break;
    default:
        plain_write(m, d->base + offset, size, value);
        break;
    }
    settle(m, d);
    show(m, f);
}

static void program(struct mcu *m, struct f4 *f, uint32_t offset, uint32_t length) {
    uint32_t sector = find_sector(f, offset);
    if (is_protected(f, sector)) {
        refuse(m, f, SR_WRPERR, FAULT_FLASH_PROTECTED, offset, f->cr);
        return;
    }
    note_cells(m, &f->main, offset, length);
    for (uint32_t i = 0; i < length; i++) { /* no error of the chip, but the cells do not hold it */
        if (f->job.data[i] & ~f->main.cells[offset + i]) {
            fault(m, FAULT_FLASH_DIRTY, offset, f->job.data[i]);
            break;
        }
    }
    job_begin(m, &f->job, OP_PROGRAM, &f->main, offset, length,
              (uint64_t)f->program_us * NS_PER_US);
}

/* Two words make a program of 64 bits. */
static void take_half(struct mcu *m, struct f4 *f, uint32_t offset, uint64_t value) {
    if (offset % 8 == 0) {
        put32(f->job.data, (uint32_t)value);
        f->half = true;
        f->half_offset = offset;
    } else if (f->half && offset == f->half_offset + 4) {
        put32(f->job.data + 4, (uint32_t)value);
        f->half = false;
        program(m, f, f->half_offset, 8);
    } else {
        refuse(m, f, SR_PGPERR, FAULT_FLASH_WIDTH, offset, 4);
    }
}

static void store(struct mcu *m, struct flash *flash, uint32_t offset, unsigned size,
                  uint64_t value) {
    struct f4 *f = (struct f4 *)flash->controller;
    uint32_t wanted = program_size(f), at = flash->first + offset;
    if (f->job.busy) { /* the bus waits (RM0090, 3.6) */
        job_wait(m, &f->job);
        settle(m, &f->device);
    }
    if (f->cr & CR_LOCK) {
        refuse(m, f, SR_PGSERR, FAULT_FLASH_LOCKED, at, (uint32_t)value);
    } else if (flash != &f->main || (f->cr & (CR_PG | CR_SER | CR_MER)) != CR_PG) {
        refuse(m, f, SR_PGSERR, FAULT_FLASH_STRAY, at, (uint32_t)value);
    } else if (wanted * 8 > f->parallelism) {
        refuse(m, f, SR_PGPERR, FAULT_FLASH_WIDTH, at, wanted);
    } else if (wanted == 8 && size == 4) {
        take_half(m, f, offset, value);
    } else if (size != wanted) {
        refuse(m, f, SR_PGPERR, FAULT_FLASH_WIDTH, at, size);
    } else {
        put32(f->job.data, (uint32_t)value);
        put32(f->job.data + 4, (uint32_t)(value >> 32));
        program(m, f, offset, size);
    }
    settle(m, &f->device);
    show(m, f);
}

static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct f4 *f = (struct f4 *)d;
    job_reset(m, &f->job, kind);
    const uint8_t *cells = f->options.cells;
    note_cells(m, &f->options, 0, OPTIONS_SIZE);
    uint32_t nwrp = get16(cells + OPTIONS_NWRP);
    f->half = false;
    f->acr = f->sr = 0;
    f->cr = CR_LOCK;
    f->lock = f->option_lock = LOCKED;
    f->optcr = OPTCR_OPTLOCK | (cells[0] & OPTCR_USER) | (uint32_t)cells[1] << OPTCR_RDP_SHIFT |
               (nwrp << 16 & OPTCR_NWRP);
    if (f->has_rderr && nwrp & 0x8000 && nwrp != 0xffff) { /* blank protects nothing */
        f->optcr |= OPTCR_SPRMOD;
    }
    show(m, f);
}

static uint64_t next(struct mcu *m, struct device *d) {
    (void)m;
    return job_next(&((struct f4 *)d)->job);
}

static void lose_power(struct mcu *m, struct device *d) {
    job_tear(m, &((struct f4 *)d)->job);
}

void flash_stm32f4_add(struct mcu *m, const struct device_place *place) {
    assert(place->flash && place->flash[1].size >= OPTIONS_SIZE);
    assert(place->flash[0].block_count <= SECTORS_MAX);
    struct f4 *f = device_memory(m, sizeof *f);
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
    memcpy(f->erase_us, place->numbers + 1, sizeof f->erase_us);
    f->mass_erase_us = place->numbers[4];
    f->parallelism = place->numbers[5];
    f->has_rderr = place->numbers[6];
    for (uint32_t at = 0; f->sectors < place->flash[0].block_count; f->sectors++) {
        f->sector_start[f->sectors] = at;
        f->sector_size[f->sectors] = place->flash[0].block_sizes[f->sectors];
        at += f->sector_size[f->sectors];
    }
    f->main.store = f->options.store = store;
    mcu_add_device(m, &f->device);
    flash_add_region(m, &f->main, &place->flash[0], &f->device);
    flash_add_region(m, &f->options, &place->flash[1], &f->device);
}
