/* An EEPROM on I2C, such as the 24C256: pages, and a cycle of its own for each write, in which it
 * does not answer. A write erases the bytes that it is for, and then programs them; cells that are
 * written as a group are so all. Source: the data sheets of M24256-BW and 24LC256. */
#include "devices.h"

enum { ADDRESS_BYTES = 2 };

struct eeprom {
    struct bus_chip chip;
    struct flash flash;
    struct flash_job job;
    uint32_t page, group, write_us;
    uint32_t at;                 /* what is read or written next */
    uint32_t taken;              /* bytes since the start, of the address too */
    uint32_t first, end;         /* of the groups to be written; none while they are equal */
    uint8_t data[OPERATION_MAX]; /* what the page is to hold */
    bool selected;
};

static void begin(struct mcu *m, struct eeprom *e, uint32_t kind) {
    uint32_t length = e->end - e->first;
    memcpy(e->job.data, e->data + e->first % e->page, length);
    job_begin(m, &e->job, kind, &e->flash, e->first, length, (uint64_t)e->write_us * NS_PER_US / 2);
}

static void settle(struct mcu *m, struct bus_chip *c) {
    struct eeprom *e = (struct eeprom *)c;
    while (job_settle(m, &e->job)) {
        if (e->job.kind == OP_ERASE) {
            begin(m, e, OP_PROGRAM);
        } else {
            e->end = e->first;
        }
    }
}

static bool start(struct mcu *m, struct bus_chip *c, bool reads) {
    struct eeprom *e = (struct eeprom *)c;
    (void)m;
    (void)reads;
    e->taken = 0;
    e->end = e->job.busy ? e->end : e->first; /* a start ends what was begun, and writes nothing */
    e->selected = !e->job.busy;
    return e->selected;
}

/* A byte of the page: its group is to be written, too. */
static void take_data(struct mcu *m, struct eeprom *e, uint8_t byte) {
    uint32_t start = e->at - e->at % e->page, group = e->at - e->at % e->group;
    if (e->first == e->end) {
        memcpy(e->data, e->flash.cells + start, e->page);
        e->first = group;
        e->end = group + e->group;
    }
    e->first = group < e->first ? group : e->first;
    e->end = group + e->group > e->end ? group + e->group : e->end;
    note_cells(m, &e->flash, e->first, e->end - e->first);
    e->data[e->at - start] = byte;
    e->at = start + (e->at + 1 - start) % e->page; /* it begins again at the end of the page */
}

static bool take(struct mcu *m, struct bus_chip *c, uint8_t byte) {
    struct eeprom *e = (struct eeprom *)c;
    if (!e->selected) {
        return false;
    }
    if (e->taken < ADDRESS_BYTES) {
        e->at = ((e->at << 8 | byte) & 0xffff) % e->flash.size;
    } else {
        take_data(m, e, byte);
    }
    e->taken++;
    return true;
}

static uint8_t give(struct mcu *m, struct bus_chip *c) {
    struct eeprom *e = (struct eeprom *)c;
    uint32_t at = e->at;
    note_cells(m, &e->flash, at, 1);
    e->at = (at + 1) % e->flash.size;
    return e->flash.cells[at];
}

static void stop(struct mcu *m, struct bus_chip *c) {
    struct eeprom *e = (struct eeprom *)c;
    if (e->selected && e->first != e->end && !e->job.busy) {
        begin(m, e, OP_ERASE);
    }
    e->selected = false;
}

/* The chip has power, and no pin that resets it: a write goes on. */
static void reset(struct mcu *m, struct bus_chip *c, enum reset_kind kind) {
    struct eeprom *e = (struct eeprom *)c;
    (void)m;
    e->selected = false;
    if (kind == RESET_POWER) {
        e->job.busy = false;
        e->at = e->first = e->end = 0;
    }
}

static uint64_t next(const struct bus_chip *c) {
    return job_next(&((const struct eeprom *)c)->job);
}

static void lose_power(struct mcu *m, struct bus_chip *c) {
    struct eeprom *e = (struct eeprom *)c;
    settle(m, c);
    job_tear(m, &e->job);
}

void eeprom_i2c_add(struct mcu *m, const struct device_place *place) {
    struct eeprom *e = device_memory(m, sizeof *e);
    e->chip = (struct bus_chip){.reset = reset,
                                .next = next,
                                .settle = settle,
                                .lose_power = lose_power,
                                .address = place->numbers[0],
                                .start = start,
                                .take = take,
                                .give = give,
                                .stop = stop};
    e->page = place->numbers[1];
    e->group = place->numbers[2];
    e->write_us = place->numbers[3];
    assert(place->flash && e->page <= OPERATION_MAX && e->page % e->group == 0);
    e->flash.apart = true;
    bus_add(i2c_bus(find_device_at(m, place->base)), &e->chip);
    flash_add_region(m, &e->flash, &place->flash[0], NULL);
}
