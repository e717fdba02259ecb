/* PWR of STM32F1 and F4: Standby, and the voltage scaling of F4. Standby loses RAM and ends with a
 * reset. What wakes the chip is not modelled: it wakes by itself after a while that the chip's file
 * says. Source: RM0008 chapter 5, RM0090 chapter 5. */
#include "devices.h"

enum { CR = 0x00, CSR = 0x04 };
enum { CR_PDDS = 1u << 1, CR_CWUF = 1u << 2, CR_CSBF = 1u << 3, CR_VOS = 3u << 14 };
enum {
    CSR_WUF = 1u << 0,
    CSR_SBF = 1u << 1,
    CSR_BRR = 1u << 3,
    CSR_EWUP = 1u << 8,
    CSR_BRE = 1u << 9,
    CSR_VOSRDY = 1u << 14
};
struct pwr {
    struct device device;
    uint32_t cr_reset, cr, csr;
    uint64_t look, standby_ns;
    bool stands_by;
};

static uint32_t status(const struct pwr *p) {
    return p->csr | (p->csr & CSR_BRE ? (uint32_t)CSR_BRR : 0) |
           (p->cr & CR_VOS ? (uint32_t)CSR_VOSRDY : 0);
}

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    const struct pwr *p = (const struct pwr *)d;
    (void)m;
    return part_of(offset < CSR ? p->cr : status(p), offset, size);
}

static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct pwr *p = (struct pwr *)d;
    if (offset >= CSR) {
        p->csr = (p->csr & (CSR_WUF | CSR_SBF)) |
                 (with_part(p->csr, offset, size, value) & (CSR_EWUP | CSR_BRE));
        return;
    }
    value = with_part(p->cr, offset, size, value);
    p->csr &=
        ~((value & CR_CWUF ? (uint32_t)CSR_WUF : 0) | (value & CR_CSBF ? (uint32_t)CSR_SBF : 0));
    p->cr = value & ~((uint32_t)CR_CWUF | CR_CSBF);
    p->look = value & CR_PDDS ? mcu_now(m) + STANDBY_LOOK_NS : NEVER;
}

static void settle(struct mcu *m, struct device *d) {
    struct pwr *p = (struct pwr *)d;
    p->stands_by = stand_by(m, &p->look, p->standby_ns) || p->stands_by;
}

static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct pwr *p = (struct pwr *)d;
    (void)m;
    p->csr = lost_supply(kind) ? 0 : p->csr & (CSR_WUF | CSR_SBF | CSR_BRE);
    if (p->stands_by && !lost_supply(kind)) {
        p->csr |= CSR_SBF | (kind == RESET_PIN ? 0 : CSR_WUF); /* the pin is no event that wakes */
    }
    p->stands_by = false;
    p->cr = p->cr_reset;
    p->look = NEVER;
}

static uint64_t next(struct mcu *m, struct device *d) {
    (void)m;
    return ((struct pwr *)d)->look;
}

void pwr_stm32_add(struct mcu *m, const struct device_place *place) {
    struct pwr *p = device_memory(m, sizeof *p);
    p->device = (struct device){.base = place->base,
                                .size = 8,
                                .read = read,
                                .write = write,
                                .reset = reset,
                                .next = next,
                                .settle = settle,
                                .free = device_free};
    p->cr_reset = place->numbers[0];
    p->standby_ns = (uint64_t)place->numbers[1] * NS_PER_US;
    mcu_add_device(m, &p->device);
}
