/* The flash of STM32F1: half-words, pages, option bytes. Source: RM0008 and PM0075, whose bus
 * errors (a wrong key, a store that is no half-word) are told as faults. */
#include "devices.h"

enum { ACR = 0x00, KEYR = 0x04, OPTKEYR = 0x08, SR = 0x0c, CR = 0x10, AR = 0x14 };
enum { OBR = 0x1c, WRPR = 0x20 };
enum { SR_BSY = 1u << 0, SR_PGERR = 1u << 2, SR_WRPRTERR = 1u << 4, SR_EOP = 1u << 5 };
#define SR_ERRORS ((uint32_t)SR_PGERR | SR_WRPRTERR)
enum {
    CR_PG = 1u << 0,
    CR_PER = 1u << 1,
    CR_MER = 1u << 2,
    CR_OPTPG = 1u << 4,
    CR_OPTER = 1u << 5,
    CR_STRT = 1u << 6,
    CR_LOCK = 1u << 7,
    CR_OPTWRE = 1u << 9,
    CR_ERRIE = 1u << 10,
    CR_EOPIE = 1u << 12
};
#define CR_COMMANDS ((uint32_t)CR_PG | CR_PER | CR_MER | CR_OPTPG | CR_OPTER | CR_STRT)
#define CR_WRITABLE (CR_COMMANDS & ~(uint32_t)CR_STRT | CR_LOCK | CR_ERRIE | CR_EOPIE)
enum { OBR_OPTERR = 1u << 0, OBR_RDPRT = 1u << 1 };
#define RDP_KEY 0xa5u
#define ACR_RESET 0x30u
#define OPTIONS_SIZE 16u /* bytes: eight option bytes, each with its complement */
#define RDP_PAGES 4u     /* from the first on, that read protection protects from being written */

struct f1 {
    struct device device;
    struct flash main, options;
    struct flash_job job;
    uint32_t interrupt, program_us, erase_us, mass_erase_us, page_size, protected_pages;
    uint32_t acr, sr, cr, ar, obr, wrpr;
    enum flash_lock lock, option_lock;
};

static void show(struct mcu *m, struct f1 *f) {
    bool high = (f->sr & SR_EOP && f->cr & CR_EOPIE) || (f->sr & SR_ERRORS && f->cr & CR_ERRIE);
    nvic_set_line(m, f->interrupt, high);
}

static void refuse(struct mcu *m, struct f1 *f, uint32_t error, uint32_t kind, uint32_t offset,
                   uint32_t detail) {
    f->sr |= error;
    fault(m, kind, offset, detail);
}

/* An option byte as it is loaded: 0xff if its complement does not fit (PM0075, 2.5). */
static uint8_t load_option(struct f1 *f, uint32_t offset) {
    uint8_t value = f->options.cells[offset], complement = f->options.cells[offset + 1];
    if (value == 0xff && complement == 0xff) {
        return 0xff;
    }
    if ((value ^ complement) != 0xff) {
        f->obr |= OBR_OPTERR;
        return 0xff;
    }
    return value;
}

static void load_options(struct mcu *m, struct f1 *f) {
    note_cells(m, &f->options, 0, OPTIONS_SIZE);
    f->obr = 0;
    if (load_option(f, 0) != RDP_KEY) {
        f->obr |= OBR_RDPRT;
    }
    f->obr |= (load_option(f, 2) & 7u) << 2;
    f->obr |= (uint32_t)load_option(f, 4) << 10 | (uint32_t)load_option(f, 6) << 18;
    f->wrpr = 0;
    for (uint32_t i = 0; i < 4; i++) {
        f->wrpr |= (uint32_t)load_option(f, 8 + 2 * i) << 8 * i;
    }
}

/* A bit of WRPR protects some pages, its last one all that are left (PM0075, 2.5). */
static bool is_protected(const struct f1 *f, uint32_t offset) {
    uint32_t page = offset / f->page_size, bit = page / f->protected_pages;
    if (f->obr & OBR_RDPRT && page < RDP_PAGES) {
        return true;
    }
    return !(f->wrpr >> (bit < 31 ? bit : 31) & 1);
}

static bool is_any_protected(const struct f1 *f) {
    for (uint32_t offset = 0; offset < f->main.size; offset += f->page_size) {
        if (is_protected(f, offset)) {
            return true;
        }
    }
    return false;
}

static bool begin(struct mcu *m, struct f1 *f, uint32_t kind, struct flash *flash, uint32_t offset,
                  uint32_t length, uint32_t us) {
    return job_begin(m, &f->job, kind, flash, offset, length, (uint64_t)us * NS_PER_US);
}

static void settle(struct mcu *m, struct device *d) {
    struct f1 *f = (struct f1 *)d;
    if (job_settle(m, &f->job)) {
        f->sr |= SR_EOP;
        show(m, f);
    }
}

static bool find_page(const struct f1 *f, uint32_t *offset) {
    uint32_t address = f->ar;
    if (f->main.alias != NOWHERE && address - f->main.alias < f->main.size) {
        address = address - f->main.alias + f->main.base;
    }
    *offset = (address - f->main.base) / f->page_size * f->page_size;
    return address - f->main.base < f->main.size;
}

static void start(struct mcu *m, struct f1 *f) {
    uint32_t offset;
    if (f->cr & CR_PER) {
        if (!find_page(f, &offset)) {
            refuse(m, f, 0, FAULT_FLASH_COMMAND, NOWHERE, f->ar);
        } else if (is_protected(f, offset)) {
            refuse(m, f, SR_WRPRTERR, FAULT_FLASH_PROTECTED, offset, f->ar);
        } else {
            begin(m, f, OP_ERASE, &f->main, offset, f->page_size, f->erase_us);
        }
    } else if (f->cr & CR_MER) {
        if (is_any_protected(f)) {
            refuse(m, f, SR_WRPRTERR, FAULT_FLASH_PROTECTED, 0, f->wrpr);
        } else {
            begin(m, f, OP_ERASE, &f->main, 0, f->main.size, f->mass_erase_us);
        }
    } else if (f->cr & CR_OPTER && f->cr & CR_OPTWRE) {
        begin(m, f, OP_ERASE, &f->options, 0, f->options.size, f->erase_us);
    } else {
        refuse(m, f, 0, f->cr & CR_OPTER ? FAULT_FLASH_LOCKED : FAULT_FLASH_COMMAND, NOWHERE,
               f->cr | CR_STRT);
    }
}

static void write_cr(struct mcu *m, struct f1 *f, uint32_t value) {
    if (f->cr & CR_LOCK) {
        if (value & CR_COMMANDS) {
            fault(m, FAULT_FLASH_LOCKED, NOWHERE, value);
        }
        return;
    }
    if (f->job.busy && value & CR_STRT) {
        fault(m, FAULT_FLASH_BUSY, NOWHERE, value);
        return;
    }
    f->cr = (value & CR_WRITABLE) | (f->cr & value & CR_OPTWRE);
    if (value & CR_LOCK) {
        f->lock = f->option_lock = LOCKED;
        f->cr &= ~(uint32_t)CR_OPTWRE;
    }
    if (!(f->cr & CR_OPTWRE) && f->option_lock == OPEN) {
        f->option_lock = LOCKED;
    }
    if (value & CR_STRT) {
        start(m, f);
    }
}

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    struct f1 *f = (struct f1 *)d;
    switch (offset & ~3u) {
    case ACR:
        return part_of(f->acr, offset, size);
    case KEYR:
    case OPTKEYR:
        return 0;
    case SR:
        return part_of(f->sr | (f->job.busy ? SR_BSY : 0), offset, size);
    case CR:
        return part_of(f->cr | (f->job.busy && f->job.kind == OP_ERASE ? CR_STRT : 0), offset,
                       size);
    case AR:
        return part_of(f->ar, offset, size);
    case OBR:
        return part_of(f->obr, offset, size);
    case WRPR:
        return part_of(f->wrpr, offset, size);
    default:
        return plain_read(m, d->base + offset, size);
    }
}

static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct f1 *f = (struct f1 *)d;
    switch (offset & ~3u) {
    case ACR: /* PRFTBS shows that PRFTBE is on */
        value = with_part(f->acr, offset, size, value) & 0x1f;
        f->acr = value | (value & 0x10) << 1;
        break;
    case KEYR:
        take_flash_key(m, &f->lock, value);
        if (f->lock == OPEN) {
            f->cr &= ~(uint32_t)CR_LOCK;
        }
        break;
    case OPTKEYR:
        if (f->cr & CR_LOCK) {
            fault(m, FAULT_FLASH_LOCKED, NOWHERE, value);
            break;
        }
        take_flash_key(m, &f->option_lock, value);
        if (f->option_lock == OPEN) {
            f->cr |= CR_OPTWRE;
        }
        break;
    case SR:
        f->sr &= ~(value << 8 * (offset & 3) & (SR_ERRORS | SR_EOP));
        break;
    case CR:
        write_cr(m, f, with_part(f->cr & ~(uint32_t)CR_STRT, offset, size, value));
        break;
    case AR:
        f->ar = with_part(f->ar, offset, size, value);
        break;
    default:
        plain_write(m, d->base + offset, size, value);
        break;
    }
    settle(m, d);
    show(m, f);
}

/* What keeps any store from being a program. While an operation is under way the bus waits (PM0075,
 * 2.3.3). */
static bool is_refused(struct mcu *m, struct f1 *f, struct flash *flash, uint32_t offset,
                       unsigned size, uint32_t value, uint32_t wanted) {
    uint32_t at = flash->first + offset;
    job_wait(m, &f->job);
    settle(m, &f->device);
    if (f->cr & CR_LOCK || (wanted == CR_OPTPG && !(f->cr & CR_OPTWRE))) {
        refuse(m, f, 0, FAULT_FLASH_LOCKED, at, value);
    } else if (!(f->cr & wanted)) {
        refuse(m, f, 0, FAULT_FLASH_STRAY, at, value);
    } else if (size != 2 || offset & 1) {
        refuse(m, f, 0, FAULT_FLASH_WIDTH, at, size);
    } else {
        return false;
    }
    return true;
}

static void store(struct mcu *m, struct flash *flash, uint32_t offset, unsigned size,
                  uint64_t value) {
    struct f1 *f = (struct f1 *)flash->controller;
    if (!is_refused(m, f, flash, offset, size, (uint32_t)value, CR_PG)) {
        if (value) {
            note_cells(m, flash, offset, 2);
        }
        /* Only 0 may be programmed over what is not erased (PM0075, 2.3.3). */
        if (is_protected(f, offset)) {
            refuse(m, f, SR_WRPRTERR, FAULT_FLASH_PROTECTED, offset, (uint32_t)value);
        } else if (!is_blank(flash->cells + offset, 2) && value) {
            refuse(m, f, SR_PGERR, FAULT_FLASH_DIRTY, offset, (uint32_t)value);
        } else {
            put16(f->job.data, (uint16_t)value);
            begin(m, f, OP_PROGRAM, flash, offset, 2, f->program_us);
        }
    }
    settle(m, &f->device);
    show(m, f);
}

/* The complement is calculated. RDP's key, when the flash is protected, has it erased first, while
 * the core stands still (PM0075, 2.4.1). */
static void store_option(struct mcu *m, struct flash *flash, uint32_t offset, unsigned size,
                         uint64_t value) {
    struct f1 *f = (struct f1 *)flash->controller;
    uint32_t at = flash->first + offset;
    if (!is_refused(m, f, flash, offset, size, (uint32_t)value, CR_OPTPG)) {
        note_cells(m, flash, offset, 2);
        bool unprotects = offset == 0 && (value & 0xff) == RDP_KEY && f->obr & OBR_RDPRT;
        if (offset >= OPTIONS_SIZE) {
            refuse(m, f, 0, FAULT_FLASH_COMMAND, at, (uint32_t)value);
        } else if (!is_blank(flash->cells + offset, 2)) {
            refuse(m, f, SR_PGERR, FAULT_FLASH_DIRTY, at, (uint32_t)value);
        } else if (!unprotects ||
                   begin(m, f, OP_ERASE, &f->main, 0, f->main.size, f->mass_erase_us)) {
            job_wait(m, &f->job);
            settle(m, &f->device);
            f->job.data[0] = (uint8_t)value;
            f->job.data[1] = (uint8_t)~value;
            begin(m, f, OP_PROGRAM, flash, offset, 2, f->program_us);
        }
    }
    settle(m, &f->device);
    show(m, f);
}

static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct f1 *f = (struct f1 *)d;
    job_reset(m, &f->job, kind);
    f->acr = ACR_RESET;
    f->sr = f->ar = 0;
    f->cr = CR_LOCK;
    f->lock = f->option_lock = LOCKED;
    load_options(m, f);
    show(m, f);
}

static uint64_t next(struct mcu *m, struct device *d) {
    (void)m;
    return job_next(&((struct f1 *)d)->job);
}

static void lose_power(struct mcu *m, struct device *d) {
    job_tear(m, &((struct f1 *)d)->job);
}

void flash_stm32f1_add(struct mcu *m, const struct device_place *place) {
    assert(place->flash && place->flash[1].size >= OPTIONS_SIZE);
    struct f1 *f = device_memory(m, sizeof *f);
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
    f->mass_erase_us = place->numbers[2];
    f->page_size = place->numbers[3];
    f->protected_pages = place->numbers[4];
    f->main.store = store;
    f->options.store = store_option;
    mcu_add_device(m, &f->device);
    flash_add_region(m, &f->main, &place->flash[0], &f->device);
    flash_add_region(m, &f->options, &place->flash[1], &f->device);
}
