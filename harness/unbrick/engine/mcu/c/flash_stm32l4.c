/* The flash of STM32L4 and G0 with one bank or two: double words with ECC, pages, option bytes.
 * Source: RM0351, RM0394 and RM0444, chapter 3, whose bus error after a wrong key is told as a
 * fault; for the fields of registers also the headers stm32g071xx.h, stm32g0b1xx.h of
 * STMicroelectronics' cmsis-device-g0. Fast programming and PCROP are not modelled. */
#include "devices.h"

enum {
    ACR = 0x00,
    PDKEYR = 0x04,
    KEYR = 0x08,
    OPTKEYR = 0x0c,
    SR = 0x10,
    CR = 0x14,
    ECCR = 0x18,
    ECC2R = 0x1c /* of bank 2, where it has one of its own */
};
enum {
    SR_EOP = 1u << 0,
    SR_OPERR = 1u << 1,
    SR_PROGERR = 1u << 3,
    SR_WRPERR = 1u << 4,
    SR_PGAERR = 1u << 5,
    SR_SIZERR = 1u << 6,
    SR_PGSERR = 1u << 7,
    SR_OPTVERR = 1u << 15,
    SR_BSY = 1u << 16,
    SR_BSY2 = 1u << 17
};
#define SR_ERRORS 0x3f8u   /* those that keep the next operation from beginning */
#define SR_CLEARED 0xc3fbu /* by writing 1 */
enum {
    CR_PG = 1u << 0,
    CR_PER = 1u << 1,
    CR_MER1 = 1u << 2,
    CR_PNB_SHIFT = 3,
    CR_MER2 = 1u << 15,
    CR_STRT = 1u << 16,
    CR_OPTSTRT = 1u << 17,
    CR_FSTPG = 1u << 18,
    CR_EOPIE = 1u << 24,
    CR_ERRIE = 1u << 25,
    CR_OBL_LAUNCH = 1u << 27,
    CR_OPTLOCK = 1u << 30
};
#define CR_LOCK (1u << 31)
#define CR_RESET (CR_LOCK | CR_OPTLOCK)
#define CR_ERASES ((uint32_t)CR_PER | CR_MER1 | CR_MER2)
#define CR_SETTINGS (CR_ERASES | CR_PG | CR_FSTPG | 0x07000000u) /* beside page and bank */
#define CR_COMMANDS (CR_ERASES | CR_PG | CR_FSTPG | CR_STRT)
enum { ECCR_BANK = 1u << 19, ECCR_ECCIE = 1u << 24 };
#define ECCR_ECCD (1u << 31)
#define RDP_LEVEL_0 0xaau
#define RDP_LEVEL_2 0xccu
#define ACR_RESET 0x600u
#define DOUBLE_WORD 8u /* bytes */
#define BANKS_MAX 2u

/* The option words, and where each lies in a region of option bytes, its complement behind it. What
 * a word is taken for that does not fit its complement: RM0351, 3.4.2. */
struct word {
    uint32_t reg, region, offset, mismatch;
};
static const struct word WORDS_OF_L4[] = {
    /* RM0351, 3.4.1 */
    {0x20, 0, 0x00, 0xfffff8ff}, /* OPTR */
    {0x24, 0, 0x08, 0x00000000}, /* PCROP1SR */
    {0x28, 0, 0x10, 0xffffffff}, /* PCROP1ER */
    {0x2c, 0, 0x18, 0xff00ffff}, /* WRP1AR */
    {0x30, 0, 0x20, 0xff00ffff}, /* WRP1BR */
    {0x44, 1, 0x08, 0x00000000}, /* PCROP2SR */
    {0x48, 1, 0x10, 0xffffffff}, /* PCROP2ER */
    {0x4c, 1, 0x18, 0xff00ffff}, /* WRP2AR */
    {0x50, 1, 0x20, 0xff00ffff}, /* WRP2BR */
};
static const struct word WORDS_OF_G0[] = {
    /* RM0444, 3.4.1; of bank 2 they may lie elsewhere */
    {0x20, 0, 0x00, 0xfffff8ff}, /* OPTR */
    {0x24, 0, 0x08, 0x00000000}, /* PCROP1ASR */
    {0x28, 0, 0x10, 0xffffffff}, /* PCROP1AER */
    {0x2c, 0, 0x18, 0xff00ffff}, /* WRP1AR */
    {0x30, 0, 0x20, 0xff00ffff}, /* WRP1BR */
    {0x34, 0, 0x28, 0x00000000}, /* PCROP1BSR */
    {0x38, 0, 0x30, 0xffffffff}, /* PCROP1BER */
    {0x80, 0, 0x70, 0x00000000}, /* SECR */
    {0x44, 0, 0x38, 0x00000000}, /* PCROP2ASR */
    {0x48, 0, 0x40, 0xffffffff}, /* PCROP2AER */
    {0x4c, 0, 0x48, 0xff00ffff}, /* WRP2AR */
    {0x50, 0, 0x50, 0xff00ffff}, /* WRP2BR */
    {0x54, 0, 0x58, 0x00000000}, /* PCROP2BSR */
    {0x58, 0, 0x60, 0xffffffff}, /* PCROP2BER */
};
enum { WORDS_MAX = sizeof WORDS_OF_G0 / sizeof *WORDS_OF_G0 };

/* How the families differ. */
struct family {
    const struct word *words;
    uint32_t counts[BANKS_MAX]; /* of words, with one bank and with two */
    uint32_t wrp[BANKS_MAX];    /* the first of the two words that protect a bank */
    uint32_t page_mask, bker;   /* in CR: PNB, and the bank */
    uint32_t ecc_shift;         /* an address in ECCR counts so much */
    bool own_ecc;               /* each bank has a register, and a bit that it is busy */
    uint32_t not_swapped;       /* in OPTR; 0: the banks do not swap */
};
static const struct family L4 = {WORDS_OF_L4, {5, 9}, {3, 7}, 0xff, 1u << 11, 0, false, 0};
static const struct family G0 = {WORDS_OF_G0, {8, 14}, {3, 10}, 0x3ff, 1u << 13, 3, true, 1u << 20};
enum { PAGES_OF_G0_BANK = 256 }; /* by which page numbers of the second bank may be higher */

struct l4 {
    struct device device;
    const struct family *family;
    struct flash main, options[BANKS_MAX];
    struct flash_job job;
    uint32_t interrupt, program_us, erase_us, mass_erase_us, page_size, banks, bank_size;
    uint32_t option_regions;
    uint32_t acr, sr, cr, eccr[BANKS_MAX];
    uint32_t words[WORDS_MAX];  /* as the registers have them */
    uint32_t loaded[WORDS_MAX]; /* as they are in force */
    enum flash_lock lock, option_lock;
    bool half; /* the first word of a double word came; it is in job.data */
    uint32_t half_offset;
    bool launched; /* options are to be loaded at this reset */
};

static uint32_t word_count(const struct l4 *f) {
    return f->family->counts[f->banks - 1];
}

static void show(struct mcu *m, struct l4 *f) {
    bool high = (f->sr & SR_EOP && f->cr & CR_EOPIE) || (f->sr & SR_OPERR && f->cr & CR_ERRIE);
    nvic_set_line(m, f->interrupt, high);
}

/* OPERR is set only while its interrupt is enabled (RM0351, 3.7.5). */
static void refuse(struct mcu *m, struct l4 *f, uint32_t error, uint32_t kind, uint32_t offset,
                   uint32_t detail) {
    f->half = false;
    f->sr |= error | (error && f->cr & CR_ERRIE ? (uint32_t)SR_OPERR : 0);
    fault(m, kind, offset, detail);
}

static uint32_t read_protection(const struct l4 *f) {
    return f->loaded[0] & 0xff;
}

/* Areas A and B of each bank; one whose end is before its start protects nothing. */
static bool is_protected(const struct l4 *f, uint32_t offset) {
    uint32_t bank = offset / f->bank_size, page = offset % f->bank_size / f->page_size;
    uint32_t field = f->bank_size / f->page_size - 1; /* a number of a page has so many bits */
    for (uint32_t area = 0; area < 2; area++) {
        uint32_t word = f->loaded[f->family->wrp[bank] + area];
        if ((word & field) <= page && page <= (word >> 16 & field)) {
            return true;
        }
    }
    return false;
}

static bool is_any_protected(const struct l4 *f, uint32_t offset, uint32_t length) {
    for (uint32_t at = offset; at < offset + length; at += f->page_size) {
        if (is_protected(f, at)) {
            return true;
        }
    }
    return false;
}

static bool begin(struct mcu *m, struct l4 *f, uint32_t kind, struct flash *flash, uint32_t offset,
                  uint32_t length, uint32_t us) {
    return job_begin(m, &f->job, kind, flash, offset, length, (uint64_t)us * NS_PER_US);
}

static void settle(struct mcu *m, struct device *d) {
    struct l4 *f = (struct l4 *)d;
    if (job_settle(m, &f->job)) {
        if (f->cr & CR_EOPIE) { /* EOP is set only then (RM0351, 3.7.5) */
            f->sr |= SR_EOP;
        }
        show(m, f);
    }
}

static void wait(struct mcu *m, struct l4 *f) {
    job_wait(m, &f->job);
    settle(m, &f->device);
}

static void erase(struct mcu *m, struct l4 *f, uint32_t offset, uint32_t length, uint32_t us) {
    if (is_any_protected(f, offset, length)) {
        refuse(m, f, SR_WRPERR, FAULT_FLASH_PROTECTED, f->main.first + offset, f->cr);
    } else {
        begin(m, f, OP_ERASE, &f->main, offset, length, us);
    }
}

static void start(struct mcu *m, struct l4 *f) {
    uint32_t bank = f->cr & f->family->bker ? 1 : 0;
    uint32_t page = f->cr >> CR_PNB_SHIFT & f->family->page_mask;
    page -= bank && page >= PAGES_OF_G0_BANK ? (uint32_t)PAGES_OF_G0_BANK : 0;
    uint32_t both = f->banks == 1 ? CR_MER1 : (uint32_t)CR_MER1 | CR_MER2;
    uint32_t kind = f->cr & (CR_ERASES | CR_PG | CR_FSTPG), size = f->bank_size;
    if (f->sr & SR_ERRORS) {
        refuse(m, f, SR_PGSERR, FAULT_FLASH_COMMAND, NOWHERE, f->cr);
    } else if (kind == CR_PER && bank < f->banks && page < size / f->page_size) {
        erase(m, f, bank * size + page * f->page_size, f->page_size, f->erase_us);
    } else if (kind == both) {
        erase(m, f, 0, f->main.size, f->mass_erase_us);
    } else if (kind == CR_MER1 || (kind == CR_MER2 && f->banks == 2)) {
        erase(m, f, kind == CR_MER1 ? 0 : size, size, f->mass_erase_us);
    } else { /* without a kind the manual promises no error flag */
        refuse(m, f, kind ? (uint32_t)SR_PGSERR : 0, FAULT_FLASH_COMMAND, NOWHERE, f->cr);
    }
}

/* All option bytes are erased and programmed, as the registers have them; leaving level 1 erases
 * the flash before (RM0351, 3.4.2 and 3.5.1). The core stands still meanwhile. */
static void program_options(struct mcu *m, struct l4 *f) {
    if (read_protection(f) == RDP_LEVEL_2) { /* for ever */
        refuse(m, f, SR_WRPERR, FAULT_FLASH_PROTECTED, f->options[0].first, f->words[0]);
        return;
    }
    if (read_protection(f) != RDP_LEVEL_0 && (f->words[0] & 0xff) == RDP_LEVEL_0) {
        if (!begin(m, f, OP_ERASE, &f->main, 0, f->main.size, f->mass_erase_us)) {
            return;
        }
        wait(m, f);
    }
    for (uint32_t region = 0; region < f->option_regions; region++) {
        struct flash *flash = &f->options[region];
        if (!begin(m, f, OP_ERASE, flash, 0, flash->size, f->erase_us)) {
            return;
        }
        wait(m, f);
    }
    for (uint32_t i = 0; i < word_count(f); i++) {
        put32(f->job.data, f->words[i]);
        put32(f->job.data + 4, ~f->words[i]);
        const struct word *word = &f->family->words[i];
        struct flash *flash = &f->options[word->region];
        if (!begin(m, f, OP_PROGRAM, flash, word->offset, DOUBLE_WORD, f->program_us)) {
            return;
        }
        wait(m, f);
    }
}

static void write_cr(struct mcu *m, struct l4 *f, uint32_t value) {
    if (f->job.busy) { /* the bus waits (RM0351, 3.7.6) */
        wait(m, f);
    }
    if (f->cr & CR_LOCK) {
        if (value & (CR_COMMANDS | CR_OPTSTRT | CR_OBL_LAUNCH)) {
            fault(m, FAULT_FLASH_LOCKED, NOWHERE, value);
        }
        return;
    }
    uint32_t option_locked = f->cr & CR_OPTLOCK;
    f->half = f->half && value & CR_PG;
    uint32_t place = f->family->page_mask << CR_PNB_SHIFT | f->family->bker;
    f->cr = (value & (CR_SETTINGS | place | CR_LOCK | CR_OPTLOCK)) | option_locked;
    if (value & CR_LOCK) {
        f->lock = LOCKED;
    }
    if (f->cr & (CR_LOCK | CR_OPTLOCK)) {
        f->option_lock = LOCKED;
        f->cr |= CR_OPTLOCK;
    }
    if (value & (CR_OPTSTRT | CR_OBL_LAUNCH) && option_locked) {
        fault(m, FAULT_FLASH_LOCKED, NOWHERE, value);
    } else if (value & CR_OPTSTRT) {
        program_options(m, f);
    } else if (value & CR_OBL_LAUNCH) {
        f->launched = true;
        mcu_reset_for(m, CAUSE_OPTIONS);
    } else if (value & CR_STRT) {
        start(m, f);
    }
}

static uint32_t find_word(const struct l4 *f, uint32_t reg) {
    for (uint32_t i = 0; i < word_count(f); i++) {
        if (f->family->words[i].reg == reg) {
            return i;
        }
    }
    return WORDS_MAX;
}

static uint32_t status(const struct l4 *f) {
    bool second = f->family->own_ecc && f->job.flash == &f->main && f->job.offset >= f->bank_size;
    return f->sr | (f->job.busy ? (uint32_t)(second ? SR_BSY2 : SR_BSY) : 0);
}

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    struct l4 *f = (struct l4 *)d;
    uint32_t word = find_word(f, offset & ~3u);
    if (word < WORDS_MAX) {
        return part_of(f->words[word], offset, size);
    }
    switch (offset & ~3u) {
    case ACR:
        return part_of(f->acr, offset, size);
    case PDKEYR:
    case KEYR:
    case OPTKEYR:
        return 0;
    case SR:
        return part_of(status(f), offset, size);
    case CR:
        return part_of(f->cr | (f->job.busy && f->job.kind == OP_ERASE ? (uint32_t)CR_STRT : 0),
                       offset, size);
    case ECCR:
        return part_of(f->eccr[0], offset, size);
    case ECC2R:
        return part_of(f->eccr[1], offset, size);
    default:
        return plain_read(m, d->base + offset, size);
    }
}

static void write_option(struct mcu *m, struct l4 *f, uint32_t word, uint32_t value) {
    if (f->cr & CR_OPTLOCK) {
        if (value != f->words[word]) {
            fault(m, FAULT_FLASH_LOCKED, NOWHERE, value);
        }
    } else {
        f->words[word] = value;
    }
}

static void write_eccr(uint32_t *eccr, uint32_t offset, unsigned size, uint32_t value) {
    value = with_part(*eccr & ~ECCR_ECCD, offset, size, value);
    *eccr = value & ECCR_ECCD ? 0 : *eccr & ~(uint32_t)ECCR_ECCIE;
    *eccr |= value & ECCR_ECCIE;
}

static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct l4 *f = (struct l4 *)d;
    uint32_t word = find_word(f, offset & ~3u);
    if (word < WORDS_MAX) {
        write_option(m, f, word, with_part(f->words[word], offset, size, value));
        return;
    }
    switch (offset & ~3u) {
    case ACR:
        f->acr = with_part(f->acr, offset, size, value);
        break;
    case KEYR:
        take_flash_key(m, &f->lock, value);
        if (f->lock == OPEN) {
            f->cr &= ~CR_LOCK;
        }
        break;
    case OPTKEYR: /* of use only while LOCK is 0 */
        take_option_key(m, &f->option_lock, value);
        if (f->option_lock == OPEN && !(f->cr & CR_LOCK)) {
            f->cr &= ~(uint32_t)CR_OPTLOCK;
        }
        break;
    case SR:
        f->sr &= ~(value << 8 * (offset & 3) & SR_CLEARED);
        break;
    case CR:
        write_cr(m, f, with_part(f->cr, offset, size, value));
        break;
    case ECCR:
        write_eccr(&f->eccr[0], offset, size, value);
        break;
    case ECC2R:
        if (f->family->own_ecc) {
            write_eccr(&f->eccr[1], offset, size, value);
        }
        break;
    default:
        plain_write(m, d->base + offset, size, value);
        break;
    }
    settle(m, d);
    show(m, f);
}

/* A double word is programmed once, but zeros may be programmed over it (RM0351, 3.3.7). */
static void program(struct mcu *m, struct l4 *f, uint32_t offset) {
    uint32_t at = f->main.first + offset;
    note_cells(m, &f->main, offset, DOUBLE_WORD);
    bool zeros = !get32(f->job.data) && !get32(f->job.data + 4);
    bool blank = is_blank(f->main.cells + offset, DOUBLE_WORD) &&
                 !check_is_broken(&f->main, offset, DOUBLE_WORD);
    if (is_protected(f, offset)) {
        refuse(m, f, SR_WRPERR, FAULT_FLASH_PROTECTED, at, f->cr);
    } else if (!blank && !zeros) {
        refuse(m, f, SR_PROGERR, FAULT_FLASH_DIRTY, at, get32(f->job.data));
    } else {
        begin(m, f, OP_PROGRAM, &f->main, offset, DOUBLE_WORD, f->program_us);
    }
}

/* Two words make a double word. */
static void take_half(struct mcu *m, struct l4 *f, uint32_t offset, uint32_t value) {
    if (!f->half && offset % DOUBLE_WORD == 0) {
        put32(f->job.data, value);
        f->half = true;
        f->half_offset = offset;
    } else if (f->half && offset == f->half_offset + 4) {
        put32(f->job.data + 4, value);
        f->half = false;
        program(m, f, f->half_offset);
    } else {
        refuse(m, f, SR_PGAERR, FAULT_FLASH_WIDTH, f->main.first + offset, 4);
    }
}

static void store(struct mcu *m, struct flash *flash, uint32_t offset, unsigned size,
                  uint64_t value) {
    struct l4 *f = (struct l4 *)flash->controller;
    uint32_t at = flash->first + offset;
    if (f->job.busy) { /* the bus waits (RM0351, 3.3.5) */
        wait(m, f);
    }
    if (f->cr & CR_LOCK) {
        refuse(m, f, SR_PGSERR, FAULT_FLASH_LOCKED, at, (uint32_t)value);
    } else if (flash != &f->main || (f->cr & (CR_PG | CR_ERASES | CR_FSTPG)) != CR_PG) {
        refuse(m, f, SR_PGSERR, FAULT_FLASH_STRAY, at, (uint32_t)value);
    } else if (f->sr & SR_ERRORS) {
        refuse(m, f, SR_PGSERR, FAULT_FLASH_COMMAND, at, (uint32_t)value);
    } else if (size != 4) {
        refuse(m, f, SR_SIZERR, FAULT_FLASH_WIDTH, at, size);
    } else {
        take_half(m, f, offset, (uint32_t)value);
    }
    settle(m, &f->device);
    show(m, f);
}

/* A read of a double word with a wrong ECC: the first one is told (RM0351, 3.3.3 and 3.7.7). */
static void on_broken(struct mcu *m, struct flash *flash, uint32_t offset) {
    struct l4 *f = (struct l4 *)flash->controller;
    uint32_t bank = offset / f->bank_size, *eccr = &f->eccr[f->family->own_ecc ? bank : 0];
    if (!(*eccr & ECCR_ECCD)) {
        *eccr |= ECCR_ECCD | (offset % f->bank_size & ~(DOUBLE_WORD - 1)) >> f->family->ecc_shift |
                 (bank && !f->family->own_ecc ? (uint32_t)ECCR_BANK : 0);
        nvic_pend_nmi(m);
    }
}

static void load_options(struct mcu *m, struct l4 *f) {
    for (uint32_t i = 0; i < word_count(f); i++) {
        const struct word *word = &f->family->words[i];
        const struct flash *flash = &f->options[word->region];
        const uint8_t *cells = flash->cells + word->offset;
        note_cells(m, flash, word->offset, DOUBLE_WORD);
        bool fits = get32(cells) == ~get32(cells + 4);
        f->loaded[i] = fits ? get32(cells) : word->mismatch;
        f->sr |= fits ? 0 : (uint32_t)SR_OPTVERR;
    }
}

static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct l4 *f = (struct l4 *)d;
    job_reset(m, &f->job, kind);
    f->half = false;
    f->acr = ACR_RESET;
    f->sr = f->eccr[0] = f->eccr[1] = 0;
    f->cr = CR_RESET;
    f->lock = f->option_lock = LOCKED;
    if (lost_supply(kind) || f->launched) {
        load_options(m, f);
    }
    f->launched = false;
    if (f->banks > 1 && f->family->not_swapped) {
        flash_swap(m, &f->main, f->loaded[0] & f->family->not_swapped ? 0 : f->bank_size);
    }
    memcpy(f->words, f->loaded, sizeof f->words);
    show(m, f);
}

static uint64_t next(struct mcu *m, struct device *d) {
    (void)m;
    return job_next(&((struct l4 *)d)->job);
}

static void lose_power(struct mcu *m, struct device *d) {
    job_tear(m, &((struct l4 *)d)->job);
}

static void add(struct mcu *m, const struct device_place *place, const struct family *family,
                uint32_t banks) {
    assert(place->flash);
    assert(place->flash[0].check_unit == DOUBLE_WORD && place->flash[0].size % banks == 0);
    struct l4 *f = device_memory(m, sizeof *f);
    f->device = (struct device){.base = place->base,
                                .size = 0x400,
                                .read = read,
                                .write = write,
                                .reset = reset,
                                .next = next,
                                .settle = settle,
                                .lose_power = lose_power,
                                .free = device_free};
    f->family = family;
    f->option_regions = family->words[family->counts[banks - 1] - 1].region + 1;
    f->interrupt = place->interrupt;
    f->program_us = place->numbers[0];
    f->erase_us = place->numbers[1];
    f->mass_erase_us = place->numbers[2];
    f->page_size = place->numbers[3];
    f->banks = banks;
    f->bank_size = place->flash[0].size / banks;
    f->job.bank = banks > 1 ? f->bank_size : 0;
    f->main.store = store;
    f->main.on_broken = on_broken;
    mcu_add_device(m, &f->device);
    flash_add_region(m, &f->main, &place->flash[0], &f->device);
    for (uint32_t region = 0; region < f->option_regions; region++) {
        f->options[region].store = store;
        flash_add_region(m, &f->options[region], &place->flash[1 + region], &f->device);
    }
    for (uint32_t i = 0; i < word_count(f); i++) {
        assert(family->words[i].offset + DOUBLE_WORD <= f->options[family->words[i].region].size);
    }
}

void flash_stm32l4_add(struct mcu *m, const struct device_place *place) {
    add(m, place, &L4, BANKS_MAX);
}

void flash_stm32l4_one_bank_add(struct mcu *m, const struct device_place *place) {
    add(m, place, &L4, 1);
}

void flash_stm32g0_add(struct mcu *m, const struct device_place *place) {
    add(m, place, &G0, BANKS_MAX);
}

void flash_stm32g0_one_bank_add(struct mcu *m, const struct device_place *place) {
    add(m, place, &G0, 1);
}
