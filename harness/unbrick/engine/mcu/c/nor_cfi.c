/* Parallel NOR flashes that describe themselves by the Common Flash Interface. Sources: JEDEC
 * JESD68.01 and JEP137 for the query, and the data sheets named in nor_cfi_amd.c and
 * nor_cfi_intel.c. */
#include "nor_cfi.h"

enum { QUERY_MAIN = 0x10, QUERY_EXTENDED = 0x40, QUERY_END = 0x60 };
enum { MOST_TIMES = 4 }; /* a longest time is typically 2 to the power of it */

static struct cfi *of(struct device *d) {
    return (struct cfi *)d;
}

uint32_t cfi_word(const struct cfi *c, uint32_t offset) {
    return offset / c->bus;
}

uint32_t cfi_by_all(const struct cfi *c, uint32_t value) {
    uint32_t all = 0;
    for (uint32_t chip = 0; chip < c->chips; chip++) {
        all |= value << 8 * c->width * chip;
    }
    return all;
}

static uint32_t get_cycle(const struct cfi *c, const uint8_t *cells) {
    uint32_t value = 0;
    memcpy(&value, cells, c->bus);
    return value;
}

uint32_t cfi_cells(struct mcu *m, struct cfi *c, uint32_t offset) {
    if (offset >= c->flash.size) { /* what is not modelled is blank */
        return cfi_by_all(c, c->width == 1 ? 0xff : 0xffff);
    }
    note_cells(m, &c->flash, offset, c->bus);
    return get_cycle(c, c->flash.cells + offset);
}

struct cfi_block cfi_block(const struct cfi *c, uint32_t offset) {
    struct cfi_block b = {0, 0, c->block_sizes[0]};
    while (offset - b.start >= b.size) {
        b.start += b.size;
        b.number++;
        b.size = c->block_sizes[b.number < c->block_count ? b.number : c->block_count - 1];
    }
    return b;
}

/* The query */

/* The least power of two that is not less. */
static uint8_t power_of(uint32_t value) {
    uint8_t power = 0;
    while (power < 31 && 1u << power < value) {
        power++;
    }
    return power;
}

/* Erase regions: how many blocks less one, and their size in one chip in units of 256 bytes. */
static uint32_t list_regions(const struct cfi *c, uint8_t *out, uint32_t most) {
    uint32_t count = 0;
    for (uint32_t i = 0, run = 0; i < c->block_count; i++) {
        run++;
        bool is_last = i + 1 == c->block_count;
        if (!is_last && c->block_sizes[i + 1] == c->block_sizes[i]) {
            continue;
        }
        run += is_last ? c->blocks - c->block_count : 0;
        assert(count < most);
        put16(out + 4 * count, (uint16_t)(run - 1));
        put16(out + 4 * count + 2, (uint16_t)(c->block_sizes[i] / c->chips / 256));
        count++;
        run = 0;
    }
    return count;
}

uint32_t cfi_query(const struct cfi *c, uint32_t word, uint32_t set, const uint8_t *extended,
                   uint32_t length) {
    enum { US_PER_MS = 1000, REGIONS = 4, TABLE = QUERY_EXTENDED };
    uint8_t table[TABLE] = {0};
    const uint32_t *n = c->numbers;
    memcpy(table + QUERY_MAIN, "QRY", 3);
    put16(table + 0x13, (uint16_t)set);
    put16(table + 0x15, QUERY_EXTENDED);
    table[0x1b] = 0x27; /* 2.7 to 3.6 V */
    table[0x1c] = 0x36;
    table[0x1f] = power_of(n[CFI_PROGRAM_US]);
    table[0x20] = n[CFI_BUFFER] ? power_of(n[CFI_BUFFER_US]) : 0;
    table[0x21] = power_of((n[CFI_ERASE_US] + US_PER_MS - 1) / US_PER_MS);
    table[0x23] = MOST_TIMES;
    table[0x24] = n[CFI_BUFFER] ? MOST_TIMES : 0;
    table[0x25] = MOST_TIMES;
    table[0x27] = power_of(c->size / c->chips);
    table[0x28] = c->extra_bit ? 2 : c->width - 1; /* x8 and x16; x16; x8 */
    table[0x2a] = n[CFI_BUFFER] ? power_of(n[CFI_BUFFER]) : 0;
    table[0x2c] = (uint8_t)list_regions(c, table + 0x2d, REGIONS);
    word >>= c->extra_bit;
    if (word >= QUERY_EXTENDED) {
        return word - QUERY_EXTENDED < length ? extended[word - QUERY_EXTENDED] : 0;
    }
    return table[word];
}

/* Operations */

static bool asks_nothing(uint8_t byte) {
    return byte == 0 || byte == 0xff;
}

bool cfi_is_dirty(struct mcu *m, struct cfi *c, uint32_t offset, const uint8_t *data,
                  uint32_t length) {
    bool dirty = false, asks = false;
    for (uint32_t i = 0; i < length; i++) {
        asks |= !asks_nothing(data[i]);
        dirty |= data[i] != 0xff && data[i] & ~c->flash.cells[offset + i];
    }
    if (asks) {
        note_cells(m, &c->flash, offset, length);
    }
    if (dirty) {
        fault(m, FAULT_FLASH_DIRTY, c->flash.first + offset, get_cycle(c, data));
    }
    return dirty;
}

bool cfi_begin(struct mcu *m, struct cfi *c, uint32_t offset, uint32_t length, const uint8_t *data,
               uint32_t us) {
    if (offset >= c->flash.size || length > c->flash.size - offset) {
        fault(m, FAULT_FLASH_COMMAND, NOWHERE, offset);
        return false;
    }
    if (data) {
        memcpy(c->job.data, data, length);
    }
    return job_begin(m, &c->job, data ? OP_PROGRAM : OP_ERASE, &c->flash, offset, length,
                     (uint64_t)us * NS_PER_US);
}

void cfi_suspend(struct mcu *m, struct cfi *c) {
    job_suspend(m, &c->job, &c->suspended, (uint64_t)c->numbers[CFI_SUSPEND_US] * NS_PER_US);
}

void cfi_resume(struct mcu *m, struct cfi *c) {
    job_resume(m, &c->job, &c->suspended);
}

bool cfi_in_suspended(const struct cfi *c, uint32_t offset) {
    return job_has(&c->suspended, offset);
}

bool cfi_open_buffer(struct cfi *c, uint32_t words, uint32_t block) {
    if (!words || words * c->width > c->numbers[CFI_BUFFER]) {
        return false;
    }
    c->left = words;
    c->length = 0;
    c->wrong = false;
    c->page = NOWHERE;
    c->first = block;
    memset(c->data, 0xff, sizeof c->data);
    return true;
}

/* The first word says which page of the buffer's size it is, and that has to be in the block. */
void cfi_fill_buffer(struct cfi *c, uint32_t offset, uint32_t value) {
    uint32_t all = c->numbers[CFI_BUFFER] * c->chips, page = offset - offset % all;
    assert(c->left);
    if (c->page == NOWHERE) {
        c->wrong = cfi_block(c, offset).start != cfi_block(c, c->first).start;
        c->page = page;
        c->first = offset;
    }
    c->left--;
    c->wrong |= page != c->page;
    if (!c->wrong) {
        uint32_t end = (uint32_t)later(c->first + c->length, offset + c->bus);
        memcpy(c->data + offset % all, &value, c->bus);
        c->first = (uint32_t)sooner(c->first, offset);
        c->length = end - c->first;
    }
}

bool cfi_buffer_is_right(const struct cfi *c) {
    return !c->wrong;
}

uint32_t cfi_buffer_us(const struct cfi *c) {
    uint32_t all = c->numbers[CFI_BUFFER] * c->chips;
    uint64_t us = (uint64_t)c->numbers[CFI_BUFFER_US] * c->length / all;
    return (uint32_t)later(us, c->numbers[CFI_PROGRAM_US]);
}

/* The bus */

static void show(struct mcu *m, struct cfi *c) {
    bool hidden = !c->is_array(c);
    if (hidden != c->flash.hidden) {
        flash_hide(m, &c->flash, hidden);
    }
}

static void settle(struct mcu *m, struct device *d) {
    struct cfi *c = of(d);
    bool has_ended = job_settle(m, &c->job);
    if (c->settle) {
        c->settle(m, c, has_ended);
    }
    show(m, c);
}

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    struct cfi *c = of(d);
    uint32_t value = 0;
    for (uint32_t at = 0; at < size;) {
        uint32_t start = offset + at - (offset + at) % c->bus, skip = offset + at - start;
        uint32_t cycle = c->is_array(c) ? cfi_cells(m, c, start) : c->answer(m, c, start % c->size);
        for (; skip < c->bus && at < size; skip++, at++) {
            value |= (cycle >> 8 * skip & 0xff) << 8 * at;
        }
    }
    show(m, c);
    return value;
}

/* A wider store is several cycles. Of a narrower one the chips would take what happens to be on the
 * other lines. */
static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct cfi *c = of(d);
    if (size < c->bus || offset % c->bus) {
        fault(m, FAULT_FLASH_WIDTH, c->flash.first + offset, size);
        return;
    }
    for (uint32_t at = 0; at < size; at += c->bus) {
        uint32_t cycle = c->bus == 4 ? value : value >> 8 * at & ((1u << 8 * c->bus) - 1);
        settle(m, d);
        c->take(m, c, (offset + at) % c->size, cycle);
        show(m, c);
    }
}

static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct cfi *c = of(d);
    if (kind != RESET_POWER && c->suspended.busy) {
        job_reset(m, &c->job, kind);
        cfi_resume(m, c);
    }
    job_reset(m, &c->job, kind);
    c->suspended.busy = c->in_query = false;
    c->left = 0;
    c->start(c);
    show(m, c);
}

static uint64_t next(struct mcu *m, struct device *d) {
    (void)m;
    const struct cfi *c = of(d);
    return sooner(job_next(&c->job), c->due ? c->due(c) : NEVER);
}

static void lose_power(struct mcu *m, struct device *d) {
    struct cfi *c = of(d);
    settle(m, d);
    job_tear(m, &c->job);
    if (c->suspended.busy) {
        cfi_resume(m, c);
        job_tear(m, &c->job);
    }
}

static void store(struct mcu *m, struct flash *f, uint32_t offset, unsigned size, uint64_t value) {
    (void)offset;
    write(m, f->controller, offset, size, (uint32_t)value);
}

void cfi_add(struct mcu *m, struct cfi *c, const struct device_place *place) {
    const uint32_t *n = place->numbers;
    assert(place->flash && place->flash->block_count);
    memcpy(c->numbers, n, sizeof c->numbers);
    c->width = n[CFI_WIDTH] / 8;
    c->chips = n[CFI_CHIPS];
    c->bus = c->width * c->chips;
    c->extra_bit = n[CFI_BYTE_MODE];
    c->size = n[CFI_SIZE] ? n[CFI_SIZE] : place->flash->size;
    c->block_sizes = place->flash->block_sizes;
    c->block_count = place->flash->block_count;
    c->blocks =
        c->block_count + (c->size - place->flash->size) / c->block_sizes[c->block_count - 1];
    assert(c->bus <= 4 && n[CFI_BUFFER] * c->chips <= OPERATION_MAX);
    c->device = (struct device){.base = place->flash->base,
                                .size = c->size,
                                .read = read,
                                .write = write,
                                .reset = reset,
                                .next = next,
                                .settle = settle,
                                .lose_power = lose_power,
                                .outside = true,
                                .free = c->device.free};
    c->flash.store = store;
    c->flash.outside = true;
    flash_add_region(m, &c->flash, place->flash, &c->device);
    mcu_add_device(m, &c->device);
}
