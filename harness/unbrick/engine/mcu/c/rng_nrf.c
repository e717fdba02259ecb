/* The random number generator of nRF52. Its numbers look random and are the same after each
 * power-on. Source: the product specifications, chapter RNG. */
#include "nrf.h"

enum { START = 0x000, STOP = 0x004, SHORTS = 0x200, CONFIG = 0x504, VALUE = 0x508 };
enum { EVENT_VALRDY = 0, SHORT_VALRDY_STOP = 1u << 0, CONFIG_CORRECTS = 1u << 0 };
enum { BYTE_US = 30, CORRECTED_BYTE_US = 120 }; /* typical */
#define SEED 0x2545f491u

struct rng {
    struct device device;
    struct nrf nrf;
    uint32_t shorts, config, value, state;
    uint64_t ready; /* when the next byte is; NEVER: it does not run */
};

static uint64_t byte_ns(const struct rng *r) {
    return (uint64_t)(r->config & CONFIG_CORRECTS ? CORRECTED_BYTE_US : BYTE_US) * NS_PER_US;
}

static void settle(struct mcu *m, struct device *d) {
    struct rng *r = (struct rng *)d;
    while (r->ready <= mcu_now(m)) {
        r->state ^= r->state << 13; /* xorshift (Marsaglia 2003) */
        r->state ^= r->state >> 17;
        r->state ^= r->state << 5;
        r->value = r->state >> 24;
        r->ready = r->shorts & SHORT_VALRDY_STOP ? NEVER : r->ready + byte_ns(r);
        nrf_event(m, &r->nrf, EVENT_VALRDY);
    }
}

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    struct rng *r = (struct rng *)d;
    uint32_t value;
    if (nrf_read(&r->nrf, offset, &value)) {
        return value;
    }
    switch (offset) {
    case SHORTS:
        return r->shorts;
    case CONFIG:
        return r->config;
    case VALUE:
        return r->value;
    default:
        return plain_read(m, d->base + offset, size);
    }
}

static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct rng *r = (struct rng *)d;
    if (nrf_write(m, &r->nrf, offset, value)) {
        return;
    }
    switch (offset) {
    case START:
        r->ready = r->ready == NEVER ? mcu_now(m) + byte_ns(r) : r->ready;
        break;
    case STOP:
        r->ready = NEVER;
        break;
    case SHORTS:
        r->shorts = value;
        break;
    case CONFIG:
        r->config = value;
        break;
    default:
        plain_write(m, d->base + offset, size, value);
        break;
    }
}

static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct rng *r = (struct rng *)d;
    if (kind == RESET_POWER) {
        r->state = SEED;
    }
    r->shorts = r->config = r->value = 0;
    r->ready = NEVER;
    nrf_reset(m, &r->nrf);
}

static uint64_t next(struct mcu *m, struct device *d) {
    const struct rng *r = (const struct rng *)d;
    (void)m;
    return r->nrf.enabled ? r->ready : NEVER;
}

void rng_nrf_add(struct mcu *m, const struct device_place *place) {
    struct rng *r = device_memory(m, sizeof *r);
    r->device = (struct device){.base = place->base,
                                .size = 0x1000,
                                .read = read,
                                .write = write,
                                .reset = reset,
                                .next = next,
                                .settle = settle,
                                .free = device_free};
    r->nrf = nrf_new(m, place->base, place->interrupt);
    mcu_add_device(m, &r->device);
}
