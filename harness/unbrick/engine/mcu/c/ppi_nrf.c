/* The programmable peripheral interconnect of nRF52: an event triggers tasks, without code. Source:
 * the product specifications, chapter PPI. Channels that are programmed by the factory, and groups,
 * are not modelled. */
#include "nrf.h"

enum { CHEN = 0x500, CHENSET = 0x504, CHENCLR = 0x508, CH = 0x510, FORK = 0x910 };
#define CHANNELS 20u
#define REGISTERS 0xa00u
#define DEPTH_MAX 8u /* tasks in a chain that takes no time; a circle ends there */

struct ppi {
    struct device device;
    uint32_t enabled, depth;
    uint32_t registers[REGISTERS / 4];
};

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    const struct ppi *p = (const struct ppi *)d;
    if (offset == CHEN || offset == CHENSET || offset == CHENCLR) {
        return p->enabled;
    }
    return offset < REGISTERS ? p->registers[offset / 4] : plain_read(m, d->base + offset, size);
}

static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct ppi *p = (struct ppi *)d;
    if (offset == CHEN) {
        p->enabled = value;
    } else if (offset == CHENSET) {
        p->enabled |= value;
    } else if (offset == CHENCLR) {
        p->enabled &= ~value;
    } else if (offset < REGISTERS) {
        p->registers[offset / 4] = value;
    } else {
        plain_write(m, d->base + offset, size, value);
    }
}

static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct ppi *p = (struct ppi *)d;
    (void)m;
    (void)kind;
    p->enabled = 0;
    memset(p->registers, 0, sizeof p->registers);
}

void ppi_event(struct mcu *m, struct device *d, uint32_t event) {
    struct ppi *p = (struct ppi *)d;
    if (!p->enabled || p->depth == DEPTH_MAX) {
        return;
    }
    p->depth++;
    for (uint32_t n = 0; n < CHANNELS; n++) {
        const uint32_t *channel = &p->registers[CH / 4 + 2 * n];
        if (p->enabled >> n & 1 && channel[0] == event) {
            uint32_t fork = p->registers[FORK / 4 + n];
            if (channel[1]) {
                write_device(m, channel[1], 1);
            }
            if (fork) {
                write_device(m, fork, 1);
            }
        }
    }
    p->depth--;
}

void ppi_nrf_add(struct mcu *m, const struct device_place *place) {
    struct ppi *p = device_memory(m, sizeof *p);
    p->device = (struct device){.base = place->base,
                                .size = 0x1000,
                                .read = read,
                                .write = write,
                                .reset = reset,
                                .free = device_free};
    mcu_add_device(m, &p->device);
}
