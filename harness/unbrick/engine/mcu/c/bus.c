/* Chips on a bus. */
#include "devices.h"

void bus_add(struct bus *b, struct bus_chip *c) {
    assert(b->count < BUS_CHIPS);
    b->chips[b->count++] = c;
}

void bus_reset(struct mcu *m, struct bus *b, enum reset_kind kind) {
    for (size_t i = 0; i < b->count; i++) {
        b->chips[i]->reset(m, b->chips[i], kind);
    }
}

uint64_t bus_next(const struct bus *b) {
    uint64_t when = NEVER;
    for (size_t i = 0; i < b->count; i++) {
        when = sooner(when, b->chips[i]->next(b->chips[i]));
    }
    return when;
}

void bus_settle(struct mcu *m, struct bus *b) {
    for (size_t i = 0; i < b->count; i++) {
        b->chips[i]->settle(m, b->chips[i]);
    }
}

void bus_lose_power(struct mcu *m, struct device *d) {
    struct bus *b = (struct bus *)d;
    for (size_t i = 0; i < b->count; i++) {
        b->chips[i]->lose_power(m, b->chips[i]);
    }
}

void bus_free(struct device *d) {
    struct bus *b = (struct bus *)d;
    for (size_t i = 0; i < b->count; i++) {
        free(b->chips[i]);
    }
    free(b);
}
