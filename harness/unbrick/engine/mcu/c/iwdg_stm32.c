/* The independent watchdog of STM32, and RCC_CSR, which says why the chip was reset; the chip's
 * file says where its flags are. Source: RM0008 chapters 19 and 7.3.10, RM0090 chapters 21
 * and 7.3.21, RM0351 chapters 36 and 6.4.29; for the others their headers of STMicroelectronics. */
#include "devices.h"

enum { KR = 0x00, PR = 0x04, RLR = 0x08, SR = 0x0c };
enum { KEY_OPEN = 0x5555, KEY_RELOAD = 0xaaaa, KEY_START = 0xcccc };
enum {
    CSR_LSION = 1u << 0,
    CSR_LSIRDY = 1u << 1,
    CSR_PINRSTF = 1u << 0, /* beginning with the flag of the pin */
    CSR_PORRSTF = 1u << 1,
    CSR_SFTRSTF = 1u << 2
};
#define CSR_FLAGS 0xfffffffeu /* the first one is before that of the pin */
#define RLR_RESET 0xfffu
#define PRESCALER_MIN 4u

struct iwdg {
    struct device device;
    uint32_t clock_hz, option, option_mask, rmvf, csr_reset, pr, rlr, csr;
    uint32_t pin_flag, iwdg_flag, lsi; /* their numbers in CSR; its bits about LSI */
    bool open, running, bit;
    uint64_t ends; /* when it resets the chip */
};

struct csr {
    struct device device;
    struct iwdg *iwdg;
};

static struct iwdg *of_csr(struct device *d) {
    return ((struct csr *)d)->iwdg;
}

static void reload(struct mcu *m, struct iwdg *w) {
    uint64_t ticks = (uint64_t)(w->rlr + 1) * (PRESCALER_MIN << (w->pr < 6 ? w->pr : 6));
    w->ends = mcu_now(m) + clock_ns(ticks, w->clock_hz);
}

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    struct iwdg *w = (struct iwdg *)d;
    switch (offset & ~3u) {
    case PR:
        return part_of(w->pr, offset, size);
    case RLR:
        return part_of(w->rlr, offset, size);
    case KR:
    case SR: /* no update is under way */
        return 0;
    default:
        return plain_read(m, d->base + offset, size);
    }
}

static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct iwdg *w = (struct iwdg *)d;
    switch (offset) {
    case KR:
        w->open = value == KEY_OPEN;
        if (value == KEY_START) {
            w->running = true;
            w->csr |= w->lsi;
        }
        if (value == KEY_START || value == KEY_RELOAD) {
            reload(m, w);
        }
        break;
    case PR:
        w->pr = w->open ? value & 7 : w->pr;
        break;
    case RLR:
        w->rlr = w->open ? value & 0xfff : w->rlr;
        break;
    default:
        plain_write(m, d->base + offset, size, value);
        break;
    }
}

static void settle(struct mcu *m, struct device *d) {
    struct iwdg *w = (struct iwdg *)d;
    if (w->running && w->ends <= mcu_now(m)) {
        fault(m, FAULT_WATCHDOG, d->base, 0);
        w->bit = true;
        w->running = false;
        mcu_reset_system(m);
    }
}

/* The option bit WDG_SW that is 0 starts it at the reset. */
static bool is_of_hardware(struct mcu *m, const struct iwdg *w) {
    uint8_t option;
    return w->option && read_option(m, w->option, &option) && !(option & w->option_mask);
}

static uint32_t flags_of(const struct iwdg *w) {
    return w->csr & CSR_FLAGS << (w->pin_flag - 2);
}

static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct iwdg *w = (struct iwdg *)d;
    uint32_t power = (uint32_t)CSR_PORRSTF << w->pin_flag,
             pin = (uint32_t)CSR_PINRSTF << w->pin_flag;
    if (kind == RESET_POWER) {
        w->csr = power | w->csr_reset;
    } else {
        uint32_t internal = w->bit ? w->iwdg_flag : (uint32_t)CSR_SFTRSTF << w->pin_flag;
        w->csr = flags_of(w) | w->csr_reset | (kind == RESET_PIN ? 0 : internal);
    }
    w->csr |= pin; /* an internal reset pulls the pin, too */
    w->pr = 0;
    w->rlr = RLR_RESET;
    w->open = w->bit = false;
    w->running = is_of_hardware(m, w);
    if (w->running) {
        reload(m, w);
    }
}

static uint64_t next(struct mcu *m, struct device *d) {
    struct iwdg *w = (struct iwdg *)d;
    (void)m;
    return w->running ? w->ends : NEVER;
}

static uint32_t csr_read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    (void)m;
    return part_of(of_csr(d)->csr, offset, size);
}

static void csr_write(struct mcu *m, struct device *d, uint32_t offset, unsigned size,
                      uint32_t value) {
    struct iwdg *w = of_csr(d);
    (void)m;
    value = with_part(w->csr, offset, size, value);
    w->csr = value & w->rmvf ? 0 : flags_of(w);
    w->csr |= w->csr_reset;
    if (value & CSR_LSION || w->running) {
        w->csr |= w->lsi;
    }
}

static void csr_reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    (void)m;
    (void)d;
    (void)kind; /* the watchdog's does both */
}

void iwdg_stm32_add(struct mcu *m, const struct device_place *place) {
    struct iwdg *w = device_memory(m, sizeof *w);
    struct csr *csr = device_memory(m, sizeof *csr);
    w->device = (struct device){.base = place->base,
                                .size = 0x400,
                                .read = read,
                                .write = write,
                                .reset = reset,
                                .next = next,
                                .settle = settle,
                                .free = device_free};
    csr->device = (struct device){.base = place->numbers[1],
                                  .size = 4,
                                  .read = csr_read,
                                  .write = csr_write,
                                  .reset = csr_reset,
                                  .free = device_free};
    csr->iwdg = w;
    w->clock_hz = place->numbers[0];
    w->option = place->numbers[2];
    w->option_mask = place->numbers[3];
    w->rmvf = place->numbers[4];
    w->csr_reset = place->numbers[5];
    w->pin_flag = place->numbers[6];
    w->iwdg_flag = 1u << place->numbers[7];
    w->lsi = place->numbers[8] ? (uint32_t)CSR_LSION | CSR_LSIRDY : 0;
    mcu_add_device(m, &w->device);
    mcu_add_device(m, &csr->device);
}
