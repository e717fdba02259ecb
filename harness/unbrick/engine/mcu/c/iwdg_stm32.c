/* The independent watchdog of STM32, and RCC_CSR, which says why the chip was reset; the chip's
 * file says where its flags are. Newer ones have a window, as long as the counter is above which a
 * reload is a reset. Source: RM0008 chapters 19 and 7.3.10, RM0090 chapters 21 and 7.3.21, RM0351
 * chapters 36 and 6.4.29; for the others their headers of STMicroelectronics. */
#include "devices.h"

enum { KR = 0x00, PR = 0x04, RLR = 0x08, SR = 0x0c, WINR = 0x10 };
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
    uint32_t clock_hz, option, option_mask, rmvf, csr_reset, pr, rlr, winr, csr;
    uint32_t pin_flag, lsi; /* the number of its flag in CSR; its bits about LSI */
    uint32_t watchdog_flag, window_flag, options_flag, brown_out_flags; /* bits of CSR */
    uint32_t prescalers; /* the largest one that PR names */
    bool open, running, has_window;
    uint64_t ends; /* when it resets the chip */
};

struct csr {
    struct device device;
    struct iwdg *iwdg;
};

static struct iwdg *of_csr(struct device *d) {
    return ((struct csr *)d)->iwdg;
}

/* The time of so many counts. */
static uint64_t time_of(const struct iwdg *w, uint32_t counts) {
    uint32_t prescaler = w->pr < w->prescalers ? w->pr : w->prescalers;
    return clock_ns((uint64_t)counts * (PRESCALER_MIN << prescaler), w->clock_hz);
}

static void reload(struct mcu *m, struct iwdg *w) {
    w->ends = mcu_now(m) + time_of(w, w->rlr + 1);
}

static void bite(struct mcu *m, struct iwdg *w) {
    fault(m, FAULT_WATCHDOG, w->device.base, 0);
    w->running = false;
    mcu_reset_for(m, CAUSE_WATCHDOG);
}

/* Whether the counter is above the window: so it is while more than that many counts are left. */
static bool is_early(struct mcu *m, const struct iwdg *w) {
    return w->running && w->winr < w->rlr && w->ends > mcu_now(m) + time_of(w, w->winr + 1);
}

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    struct iwdg *w = (struct iwdg *)d;
    switch (offset & ~3u) {
    case PR:
        return part_of(w->pr, offset, size);
    case RLR:
        return part_of(w->rlr, offset, size);
    case WINR:
        return w->has_window ? part_of(w->winr, offset, size) : 0;
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
        if (value == KEY_RELOAD && is_early(m, w)) {
            bite(m, w);
            break;
        }
        if (value == KEY_START) {
            w->running = true;
            w->csr |= w->lsi;
        }
        if (value == KEY_START || value == KEY_RELOAD) {
            reload(m, w);
        }
        break;
    case PR:
        w->pr = w->open ? value & (w->prescalers > 7 ? 15 : 7) : w->pr;
        break;
    case RLR:
        w->rlr = w->open ? value & 0xfff : w->rlr;
        break;
    case WINR: /* a write reloads the counter, too */
        if (w->has_window && w->open) {
            w->winr = value & 0xfff;
            reload(m, w);
        }
        break;
    default:
        plain_write(m, d->base + offset, size, value);
        break;
    }
}

static void settle(struct mcu *m, struct device *d) {
    struct iwdg *w = (struct iwdg *)d;
    if (w->running && w->ends <= mcu_now(m)) {
        bite(m, w);
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

/* The flag of a reset that the chip has made itself. Of Standby PWR alone tells. */
static uint32_t flag_of(const struct iwdg *w, enum reset_cause cause) {
    const uint32_t flags[] = {
        [CAUSE_SOFTWARE] = (uint32_t)CSR_SFTRSTF << w->pin_flag,
        [CAUSE_WATCHDOG] = w->watchdog_flag,
        [CAUSE_WINDOW] = w->window_flag,
        [CAUSE_OPTIONS] = w->options_flag,
        [CAUSE_STANDBY] = 0,
    };
    return flags[cause];
}

static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct iwdg *w = (struct iwdg *)d;
    uint32_t power = (uint32_t)CSR_PORRSTF << w->pin_flag,
             pin = (uint32_t)CSR_PINRSTF << w->pin_flag;
    if (kind == RESET_POWER) {
        w->csr = power | w->brown_out_flags;
    } else if (kind == RESET_BROWN_OUT) {
        w->csr = w->brown_out_flags ? w->brown_out_flags : power;
    } else {
        w->csr = flags_of(w) | (kind == RESET_PIN ? 0 : flag_of(w, reset_cause(m)));
    }
    w->csr |= w->csr_reset | pin; /* an internal reset pulls the pin, too */
    w->pr = 0;
    w->rlr = w->winr = RLR_RESET;
    w->open = false;
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
    w->watchdog_flag = 1u << place->numbers[7];
    w->lsi = place->numbers[8] ? (uint32_t)CSR_LSION | CSR_LSIRDY : 0;
    w->window_flag = 1u << place->numbers[9];
    w->options_flag = place->numbers[10] ? 1u << place->numbers[10] : 0;
    w->brown_out_flags = place->numbers[11] ? 1u << place->numbers[11] : 0;
    w->has_window = place->numbers[12];
    w->prescalers = place->numbers[13];
    mcu_add_device(m, &w->device);
    mcu_add_device(m, &csr->device);
}
