/* What the peripherals of an nRF52 have in common: tasks, events, interrupts. Source: the product
 * specification, "Peripheral interface". */
#pragma once

#include "devices.h"

enum { EVENTS = 0x100, EVENTS_END = 0x180, INTEN = 0x300, INTENSET = 0x304, INTENCLR = 0x308 };

/* Bit n stands for the event at EVENTS + 4 n, as it does in INTEN. */
struct nrf {
    uint32_t events, enabled;
    uint32_t interrupt;
    uint32_t base; /* of the peripheral */
    struct device *ppi;
};

/* ppi_nrf.c */
void ppi_event(struct mcu *m, struct device *ppi, uint32_t event);

/* The peripheral at `base`; the PPI, if the chip has one, is there already. */
static inline struct nrf nrf_new(struct mcu *m, uint32_t base, uint32_t interrupt) {
    enum { PPI = 0x4001f000 }; /* of all nRF52 */
    return (struct nrf){.interrupt = interrupt, .base = base, .ppi = find_device_at(m, PPI)};
}

static inline void nrf_show(struct mcu *m, const struct nrf *n) {
    nvic_set_line(m, n->interrupt, n->events & n->enabled);
}

static inline void nrf_event(struct mcu *m, struct nrf *n, unsigned event) {
    n->events |= 1u << event;
    nrf_show(m, n);
    if (n->ppi) {
        ppi_event(m, n->ppi, n->base + EVENTS + 4 * event);
    }
}

static inline bool nrf_read(const struct nrf *n, uint32_t offset, uint32_t *value) {
    if (offset >= EVENTS && offset < EVENTS_END) {
        *value = n->events >> (offset - EVENTS) / 4 & 1;
        return true;
    }
    *value = n->enabled;
    return offset == INTEN || offset == INTENSET || offset == INTENCLR;
}

static inline bool nrf_write(struct mcu *m, struct nrf *n, uint32_t offset, uint32_t value) {
    if (offset >= EVENTS && offset < EVENTS_END) {
        uint32_t bit = 1u << (offset - EVENTS) / 4;
        n->events = (n->events & ~bit) | (value & 1 ? bit : 0);
    } else if (offset == INTEN) {
        n->enabled = value;
    } else if (offset == INTENSET) {
        n->enabled |= value;
    } else if (offset == INTENCLR) {
        n->enabled &= ~value;
    } else {
        return false;
    }
    nrf_show(m, n);
    return true;
}

static inline void nrf_reset(struct mcu *m, struct nrf *n) {
    n->events = n->enabled = 0;
    nrf_show(m, n);
}
