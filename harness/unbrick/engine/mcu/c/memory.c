/* Memories and the bus: what Unicorn has where, and what it needs to be told.
 *
 * Unicorn asks for each page that the firmware uses (a TLB of ours), so an address may lead to
 * another one:
 *
 *   the address itself   RAM, and flash for reads and fetches
 *   BUS + address        registers, stores to flash: Unicorn calls read_bus() and write_bus()
 *   GUARD + address      what may not be accessed in part or at all: Unicorn calls on_refused()
 *   NOTED + address      flash of which each load is noted: Unicorn calls read_noted() */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "models.h"

struct page { /* uc_tlb_entry */
    uint64_t address;
    uint32_t permissions; /* uc_prot: as MAY_READ, ... */
};

enum { PERIPHERALS = 0x40000000, PERIPHERALS_SIZE = 0x20000000, BIT_BAND_SIZE = 0x2000000 };
#define PRIVATE 0xe0000000u
#define PRIVATE_SIZE 0x100000u
#define RAM_BIT_BAND 0x22000000u
#define DEVICE_BIT_BAND 0x42000000u

static bool within(uint32_t address, uint32_t base, uint32_t size) {
    return address - base < size;
}

#define FLASH_WINDOWS 0x10000000u
#define XIP_REGISTERS 0x14000000u
#define BIT_OPERATIONS 0x3000u

/* Whether registers have three more addresses here, which flip, set and clear bits: RP2040 data
 * sheet, section 2.1.2. */
static bool has_bit_operations(const struct mcu *m, uint32_t address) {
    return m->setup.shared_bus && (within(address, PERIPHERALS, PERIPHERALS_SIZE) ||
                                   within(address, XIP_REGISTERS, BIT_OPERATIONS + 0x1000));
}

/* The address that another one stands for: of what secure code has at two, and of what an RP2040
 * has at four, its flash and most registers. */
static uint32_t plain_address(const struct mcu *m, uint32_t address) {
    enum { SECURE = 0x10000000, RAM = 0x30000000, DEVICES = 0x50000000 };
    enum { WINDOW = 0x1000000, WINDOWS = 4 };
    if (m->setup.shared_bus && within(address, FLASH_WINDOWS, WINDOWS * WINDOW)) {
        return FLASH_WINDOWS + address % WINDOW;
    }
    if (has_bit_operations(m, address)) {
        return address & ~BIT_OPERATIONS;
    }
    bool secure =
        m->setup.secure_alias && (within(address, RAM, SECURE) || within(address, DEVICES, SECURE));
    return secure ? address - SECURE : address;
}

struct ram *find_ram(struct mcu *m, uint32_t address, uint32_t *offset) {
    address = plain_address(m, address);
    for (size_t i = 0; i < m->ram_count; i++) {
        if (within(address, m->rams[i].base, m->rams[i].size)) {
            *offset = address - m->rams[i].base;
            return &m->rams[i];
        }
    }
    return NULL;
}

struct region *find_flash(struct mcu *m, uint32_t address, uint32_t *offset) {
    address = plain_address(m, address);
    for (size_t i = 0; i < m->region_count; i++) {
        const struct flash *f = m->regions[i].flash;
        if (f->apart) {
            continue;
        }
        if (within(address, f->base, f->size)) {
            *offset = (address - f->base) ^ f->swapped;
            return &m->regions[i];
        }
        if (f->alias != NOWHERE && within(address, f->alias, f->size)) {
            *offset = (address - f->alias) ^ f->swapped;
            return &m->regions[i];
        }
    }
    return NULL;
}

/* The address that code has for a place of Unicorn's, where flash lies as its cells do. */
uint32_t code_address(const struct mcu *m, uint64_t place) {
    uint32_t address = (uint32_t)place;
    bool is_cells = place - address == 0 || place - address == NOTED;
    for (size_t i = 0; m->swaps && is_cells && i < m->region_count; i++) {
        const struct flash *f = m->regions[i].flash;
        if (f->swapped && within(address, f->base, f->size)) {
            return f->base + ((address - f->base) ^ f->swapped);
        }
    }
    return address;
}

/* RAM or, to be read, flash; NULL where it is not all there. No access is across two banks. */
uint8_t *memory_at(struct mcu *m, uint32_t address, uint32_t length, bool to_write) {
    uint32_t offset = 0;
    const struct ram *ram = find_ram(m, address, &offset);
    if (ram) {
        bool there = length <= ram->size - offset && !(to_write && ram->constant);
        return there ? ram->memory + offset : NULL;
    }
    const struct region *r = to_write ? NULL : find_flash(m, address, &offset);
    return r && length <= r->flash->size - offset ? r->flash->cells + offset : NULL;
}

bool is_bit_band(const struct mcu *m, uint32_t address, uint32_t *target) {
    for (uint32_t alias = RAM_BIT_BAND; m->setup.bit_band;
         alias += DEVICE_BIT_BAND - RAM_BIT_BAND) {
        if (within(address, alias, BIT_BAND_SIZE)) {
            *target = alias - BIT_BAND_SIZE + ((address - alias) >> 5);
            return true;
        }
        if (alias == DEVICE_BIT_BAND) {
            break;
        }
    }
    return false;
}

static bool is_private(const struct mcu *m, uint32_t address) {
    return !is_application(m) && within(address, PRIVATE, PRIVATE_SIZE);
}

static struct device *find_device(const struct mcu *m, uint32_t address) {
    size_t low = 0, high = m->device_count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (m->devices[middle]->base <= address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    struct device *d = low ? m->devices[low - 1] : NULL;
    return d && within(address, d->base, d->size) ? d : NULL;
}

static bool has_device_within(const struct mcu *m, uint32_t page) {
    for (size_t i = 0; i < m->device_count; i++) {
        const struct device *d = m->devices[i];
        if (d->base < page + PAGE && d->base + d->size > page) {
            return true;
        }
    }
    return false;
}

/* Whether there are registers in a page, or flash that is too small to be a page of its own. */
static bool is_bus(struct mcu *m, uint32_t page) {
    uint32_t target;
    page = plain_address(m, page);
    if (is_private(m, page) ||
        (!is_application(m) && within(page, PERIPHERALS, PERIPHERALS_SIZE)) ||
        is_bit_band(m, page, &target) || has_device_within(m, page)) {
        return true;
    }
    for (size_t i = 0; i < m->area_count; i++) {
        const struct plain_area *a = &m->areas[i];
        if (a->base < page + PAGE && a->base + a->size > page) {
            return true;
        }
    }
    for (size_t i = 0; i < m->region_count; i++) {
        const struct flash *f = m->regions[i].flash;
        if (!m->regions[i].mapped && !f->apart && f->base < page + PAGE &&
            f->base + f->size > page) {
            return true;
        }
    }
    return false;
}

static void note_at(struct mcu *m, enum note_source source, uint32_t address, uint32_t length) {
    uint32_t offset = 0;
    const struct region *r = m->notes.sources && length ? find_flash(m, address, &offset) : NULL;
    if (r) {
        notes_add(&m->notes, source, r->flash->first + offset, length);
    }
}

/* The bus */

static void ask_when(struct mcu *m, struct device *d) {
    d->due = d->next ? d->next(m, d) : NEVER;
    m->event = sooner(m->event, d->due);
    m->end = sooner(m->end, d->due);
}

void mcu_look_again(struct mcu *m, struct device *d) {
    ask_when(m, d);
}

static void settle(struct mcu *m, struct device *d) {
    if (d && d->settle) {
        d->settle(m, d);
    }
}

static uint32_t bus_read(struct mcu *m, uint32_t address, unsigned size) {
    uint32_t offset;
    address = plain_address(m, address);
    struct device *d = find_device(m, address);
    if (d) {
        settle(m, d);
        uint32_t value = d->read(m, d, address - d->base, size);
        ask_when(m, d);
        return value;
    }
    if (is_private(m, address)) {
        return scs_read(m, address - PRIVATE, size);
    }
    const uint8_t *memory = memory_at(m, address, size, false);
    if (memory) {
        struct region *r = find_flash(m, address, &offset);
        settle(m, r ? r->flash->controller : NULL);
        if (r) {
            notes_add(&m->notes, NOTE_LOADS, r->flash->first + offset, size);
        }
        uint32_t value = 0;
        memcpy(&value, memory, size);
        return value;
    }
    return plain_read(m, address, size);
}

/* What a store that only flips, sets or clears bits leaves. */
static uint32_t with_bits(struct mcu *m, uint32_t address, unsigned size, uint32_t value) {
    enum { FLIP = 1, SET, CLEAR };
    unsigned operation = (address & BIT_OPERATIONS) >> 12;
    uint32_t old = operation ? bus_read(m, address, size) : value;
    return operation == FLIP    ? old ^ value
           : operation == SET   ? old | value
           : operation == CLEAR ? old & ~value
                                : value;
}

static void bus_write(struct mcu *m, uint32_t address, unsigned size, uint64_t value) {
    uint32_t offset;
    value = has_bit_operations(m, address) ? with_bits(m, address, size, (uint32_t)value) : value;
    address = plain_address(m, address);
    struct device *d = find_device(m, address);
    struct region *r = d ? NULL : find_flash(m, address, &offset);
    if (d) {
        settle(m, d);
        d->write(m, d, address - d->base, size, (uint32_t)value);
        ask_when(m, d);
    } else if (r) {
        settle(m, r->flash->controller);
        r->flash->store(m, r->flash, offset, size, value);
        if (r->flash->controller) {
            ask_when(m, r->flash->controller);
        }
    } else if (is_private(m, address)) {
        scs_write(m, address - PRIVATE, size, (uint32_t)value);
    } else if (find_ram(m, address, &offset)) {
        dma_write(m, address, &value, size);
    } else {
        plain_write(m, address, size, (uint32_t)value);
    }
}

/* A word of the bit-band alias is one bit. */
static uint32_t bit_read(struct mcu *m, uint32_t address, uint32_t target) {
    return bus_read(m, target & ~3u, 4) >> ((target & 3) * 8 + (address >> 2 & 7)) & 1;
}

static void bit_write(struct mcu *m, uint32_t address, uint32_t target, uint32_t value) {
    uint32_t bit = 1u << ((target & 3) * 8 + (address >> 2 & 7));
    uint32_t old = bus_read(m, target & ~3u, 4);
    bus_write(m, target & ~3u, 4, value & 1 ? old | bit : old & ~bit);
}

/* Firmware that polls: after some reads of the same register by the same block that gave the same
 * value, or one of two in turn, each takes longer, but never past what is due. */
static void pace_polling(struct mcu *m, uint32_t address, uint32_t value) {
    enum { READS_AT_ONCE = 16, POLL_NS = 4000 };
    struct polling *p = &m->polling;
    bool is_known = p->value == value || p->before == value;
    uint32_t before = p->value == value ? p->before : p->value;
    if (p->address != address || !is_known || p->pc != m->block_pc) {
        *p = (struct polling){address, value, before, m->block_pc, 0};
        return;
    }
    p->before = before;
    p->value = value;
    if (++p->reads > READS_AT_ONCE && m->end > m->now) {
        m->now += sooner(POLL_NS, m->end - m->now);
    }
}

static uint64_t read_bus(void *uc, uint64_t offset, unsigned size, void *user) {
    struct mcu *m = user;
    uint32_t address = (uint32_t)offset, target;
    (void)uc;
    if (m->aborting) { /* as if it had not been executed */
        return 0;
    }
    m->now += m->setup.access_ns;
    bool bit = is_bit_band(m, address, &target);
    uint32_t value = bit ? bit_read(m, address, target) : bus_read(m, address, size);
    pace_polling(m, address, value);
    return value;
}

/* Code reads the constants beside it over and over. After so many loads all of its page has a say,
 * which does no harm, and makes the page fast. */
static void note_beside_code(struct mcu *m, const struct region *r, uint32_t page) {
    if (r->coded[page] && (r->loads[page] == MOST_LOADS || ++r->loads[page] == MOST_LOADS) &&
        m->notes.sources & NOTE_LOADS) {
        notes_add_range(&m->notes, r->flash->first + page * PAGE, PAGE);
    }
}

/* A load from flash takes no time of its own, whether it is noted or not. */
static uint64_t read_noted(void *uc, uint64_t place, unsigned size, void *user) {
    struct mcu *m = user;
    uint32_t offset = 0;
    const struct region *r = find_flash(m, code_address(m, place), &offset);
    uint64_t value = 0;
    (void)uc;
    assert(r && size <= sizeof value);
    notes_add(&m->notes, NOTE_LOADS, r->flash->first + offset, size);
    note_beside_code(m, r, offset / PAGE);
    memcpy(&value, r->flash->cells + offset, size);
    return value;
}

static void write_bus(void *uc, uint64_t offset, unsigned size, uint64_t value, void *user) {
    struct mcu *m = user;
    uint32_t address = (uint32_t)offset, target;
    (void)uc;
    if (m->aborting) {
        return;
    }
    m->now += m->setup.access_ns;
    m->polling.reads = m->looks = 0;
    if (m->stuck) {
        return;
    }
    if (is_bit_band(m, address, &target)) {
        bit_write(m, address, target, (uint32_t)value);
    } else {
        bus_write(m, address, size, value);
    }
}

bool dma_read(struct mcu *m, uint32_t address, void *data, uint32_t length) {
    uint32_t offset = 0;
    const uint8_t *memory = memory_at(m, address, length, false);
    const struct region *r = memory ? find_flash(m, address, &offset) : NULL;
    if (!memory || (r && r->flash->hidden)) {
        return false;
    }
    note_at(m, NOTE_TRANSFERS, address, length);
    memcpy(data, memory, length);
    return true;
}

bool dma_write(struct mcu *m, uint32_t address, const void *data, uint32_t length) {
    uint8_t *memory = memory_at(m, address, length, true);
    if (!memory) {
        return false;
    }
    memcpy(memory, data, length);
    uint32_t offset = 0;
    struct ram *ram = find_ram(m, address, &offset);
    for (uint32_t page = offset / PAGE; page * PAGE < offset + length; page++) {
        if (ram->executed[page]) {
            forget_range(m, ram->base + page * PAGE, ram->base + (page + 1) * PAGE);
        }
    }
    return true;
}

bool halfword_at(struct mcu *m, uint32_t address, uint16_t *value) {
    const uint8_t *memory = memory_at(m, address, 2, false);
    *value = memory ? get16(memory) : 0;
    if (memory) {
        note_at(m, NOTE_FETCHES, address, 2);
    }
    return memory != NULL;
}

/* Pages */

/* Before it asks for a page, Unicorn 2.1.4 puts the CPU into the state of the instruction that
 * needs it, also into its IT block, and does not take that back when the block goes on: without
 * this the next block begins inside an IT block. */
void leave_it_block(struct mcu *m) {
    enum { IT_BITS = 0x0600fc00 };
    if (is_application(m)) {
        application_leave_it_block(m);
        return;
    }
    uint32_t xpsr = read_register(m, REG_XPSR);
    if (xpsr & IT_BITS) {
        write_register(m, REG_XPSR_ALL, xpsr & ~(uint32_t)IT_BITS);
    }
}

static bool is_never_executed(const struct mcu *m, uint32_t address) {
    if (is_application(m)) {
        return false;
    }
    /* By the default memory map, B3.1. */
    return within(address, PERIPHERALS, PERIPHERALS_SIZE) || address >= 0xa0000000u;
}

/* What may be done with memory; of a page in which not all is alike, with this address. */
static unsigned may_at(struct mcu *m, uint32_t address) {
    return mpu_is_on(m) ? mpu_permissions(m, address, is_privileged(m)) : MAY_ALL;
}

static bool fetch_page(struct mcu *m, uint32_t address, struct page *page) {
    uint32_t offset = 0;
    struct ram *ram = find_ram(m, address, &offset);
    struct region *r = ram ? NULL : find_flash(m, address, &offset);
    bool is_memory = ram || (r && r->mapped && !r->flash->hidden);
    page->permissions = r && m->notes.sources ? MAY_EXECUTE : MAY_READ | MAY_EXECUTE;
    page->address = r ? r->flash->base + offset : ram ? ram->base + offset : address;
    if (is_application(m) && address / PAGE == UINT32_MAX / PAGE) {
        return true; /* as execution ends, Unicorn looks where it would have been to stop */
    }
    if (m->host) {
        return ram || (r && r->mapped);
    }
    bool mpu = mpu_is_on(m), mixed = mpu && mpu_is_mixed(m, address);
    uint32_t pc = mixed ? read_register(m, REG_PC) : address;
    unsigned may = may_at(m, within(pc, address, PAGE) ? pc : address);
    bool denied = !(may & MAY_EXECUTE);
    if (denied || !is_memory || (!mpu && is_never_executed(m, address))) {
        bool violation = denied || is_never_executed(m, address);
        m->trap = (struct trap){violation ? IACCVIOL : IBUSERR, 0};
        m->trapped = true;
        return false;
    }
    if (ram) {
        ram->executed[offset / PAGE] = true;
    }
    if (!mixed && !(r && m->notes.sources)) {
        page->permissions = ram && !ram->constant ? may : may & ~(unsigned)MAY_WRITE;
    } else {
        page->permissions = MAY_EXECUTE;
    }
    return true;
}

/* Where data of memory that is all alike is: a page that was executed may be so again. */
static void share_page(unsigned may, const struct ram *ram, struct page *page) {
    bool execute = !ram || ram->executed[((uint32_t)page->address - ram->base) / PAGE];
    page->permissions = may & (execute ? MAY_ALL : MAY_READ | MAY_WRITE);
    page->permissions &= ram && !ram->constant ? MAY_ALL : ~(unsigned)MAY_WRITE;
}

/* Whether there are units in a page whose loads are still to be noted. */
static bool is_to_be_noted(const struct mcu *m, const struct region *r, uint32_t offset) {
    uint32_t place = r->flash->first + (offset - offset % PAGE);
    return m->notes.sources &&
           (place % NOTES_AT_ONCE || !notes_are_complete(&m->notes, place, PAGE));
}

static bool on_page(void *uc, uint64_t address, int type, struct page *page, void *user) {
    struct mcu *m = user;
    uint32_t offset = 0, at = (uint32_t)address;
    (void)uc;
    if (type == ACCESS_FETCH) {
        return !m->aborting && fetch_page(m, at, page);
    }
    if (m->aborting) {
        return false;
    }
    leave_it_block(m);
    unsigned wanted = type == ACCESS_WRITE ? MAY_WRITE : MAY_READ;
    struct ram *ram = find_ram(m, at, &offset);
    struct region *r = ram ? NULL : find_flash(m, at, &offset);
    bool is_flash = r && r->mapped && !r->flash->hidden, is_memory = ram || is_flash;
    bool private = is_private(m, at);
    bool mixed = is_memory && mpu_is_mixed(m, at) && mpu_is_on(m);
    bool refused = ram && ram->constant && wanted == MAY_WRITE;
    unsigned may = private ? (is_privileged(m) ? MAY_ALL : 0) : may_at(m, at);
    if (mixed || refused || !(may & wanted) || !(is_memory || is_bus(m, at))) {
        page->address = GUARD + at;
        page->permissions = wanted;
    } else if (ram || (is_flash && wanted == MAY_READ)) {
        page->address = (r ? r->flash->base : ram->base) + offset;
        share_page(may, ram, page);
        if (r && is_to_be_noted(m, r, offset)) { /* a fetch asks for the page itself */
            page->address += NOTED;
            page->permissions = MAY_READ;
        }
    } else {
        page->address = BUS + at;
        page->permissions = is_flash ? MAY_WRITE : may & (MAY_READ | MAY_WRITE);
    }
    return true;
}

/* Which fault an access to this address is; 0: none. */
static uint32_t judge(struct mcu *m, uint32_t address, unsigned wanted) {
    uint32_t offset;
    if (is_private(m, address)) {
        return is_privileged(m) ? 0 : PRECISERR | BFARVALID;
    }
    if (mpu_is_on(m) && !(mpu_permissions(m, address, is_privileged(m)) & wanted)) {
        return DACCVIOL | MMARVALID;
    }
    const struct ram *ram = find_ram(m, address, &offset);
    bool there = ram ? !(ram->constant && wanted == MAY_WRITE)
                     : find_flash(m, address, &offset) || is_bus(m, address);
    return there ? 0 : PRECISERR | BFARVALID;
}

/* An access to a page that is guarded. Unicorn stops a read that is refused at once. After a store
 * it goes on with the block: what the CPU was is kept, and there are no pages any more until it
 * stops. */
static bool on_refused(void *uc, int type, uint64_t at, int size, int64_t value, void *user) {
    enum { WRITE_UNMAPPED = 20, WRITE_PROT = 22, FETCH_UNMAPPED = 21, FETCH_PROT = 24 };
    struct mcu *m = user;
    uint32_t address = (uint32_t)at, offset = 0;
    bool write = type == WRITE_UNMAPPED || type == WRITE_PROT;
    if (type == FETCH_UNMAPPED || type == FETCH_PROT || m->aborting || m->trapped) {
        return false;
    }
    uint32_t cfsr = judge(m, address, write ? MAY_WRITE : MAY_READ);
    if (!cfsr && write && find_flash(m, address, &offset)) {
        /* Of a page in which not all may be stored to: the store takes place here and Unicorn's own
         * does not. */
        leave_it_block(m);
        write_bus(uc, address, (unsigned)size, (uint64_t)value, user);
        return false;
    }
    if (!cfsr) {
        leave_it_block(m);
        if (!write) {
            note_at(m, NOTE_LOADS, address, (uint32_t)size);
        }
        return true;
    }
    m->trap = (struct trap){cfsr, address};
    m->trapped = true;
    if (write) {
        enum { FLUSH_TLB = 11, CONTROL_WRITE = 1 << 30 };
        m->u.context_save(uc, m->u.scratch);
        m->aborting = m->stopping = true;
        m->u.ctl(uc, FLUSH_TLB | CONTROL_WRITE);
        m->u.emu_stop(uc);
    }
    return false;
}

/* Accesses that are not aligned, and reads of cells whose check cell is wrong. Unicorn knows no
 * such fault, and a hook of its own cannot refuse an access. So what the CPU was is kept, and what
 * the rest of the block writes is taken back. */

static bool refuses_unaligned(const struct mcu *m) {
    enum { UNALIGN_TRP = 1 << 3 };
    return m->scs.ccr & UNALIGN_TRP;
}

void keep_bytes(struct mcu *m, uint32_t address, uint32_t size) {
    const uint8_t *memory = memory_at(m, address, size, true);
    if (!memory) {
        return; /* no other place changes meanwhile */
    }
    if (m->undo_count == m->undo_capacity) {
        m->undo_capacity = m->undo_capacity ? m->undo_capacity * 2 : 64;
        m->undo = realloc(m->undo, m->undo_capacity * sizeof *m->undo);
        if (!m->undo) {
            abort();
        }
    }
    struct undo *u = &m->undo[m->undo_count++];
    u->address = address;
    u->size = size;
    memcpy(u->bytes, memory, size);
}

void take_back(struct mcu *m) {
    while (m->undo_count) {
        const struct undo *u = &m->undo[--m->undo_count];
        dma_write(m, u->address, u->bytes, u->size);
    }
}

static void on_access(void *uc, int type, uint64_t at, int size, int64_t value, void *user) {
    struct mcu *m = user;
    uint32_t address = code_address(m, at), length = (uint32_t)size;
    (void)value;
    assert(length && length <= sizeof m->undo->bytes);
    bool unaligned = address & (length < 4 ? length - 1 : 3) && refuses_unaligned(m);
    bool broken = type != ACCESS_WRITE && check_is_broken_at(m, address, length);
    if (!m->aborting && !m->trapped && (unaligned || broken)) {
        m->trap = (struct trap){UNALIGNED, 0};
        m->broken = !unaligned;
        m->broken_at = address;
        m->u.context_save(uc, m->u.scratch);
        m->trapped = m->aborting = m->stopping = true;
        m->u.emu_stop(uc);
    }
    if (m->aborting && type == ACCESS_WRITE) {
        keep_bytes(m, address, length);
    } else if (is_main(m)) {
        leave_it_block(m);
    }
}

/* From now on every access is looked at, which costs time; so not before there is a reason. */
void watch_accesses(struct mcu *m) {
    enum { READ_AND_WRITE = 3072 };
    if (m->watches || !(refuses_unaligned(m) || m->has_broken)) {
        return;
    }
    m->watches = true;
    if (m->u.hook_add(m->u.uc, &m->hook[4], READ_AND_WRITE, (void *)on_access, m, 1, 0)) {
        abort();
    }
    forget_all_code(m);
}

/* All code is to be translated again. */
void forget_all_code(struct mcu *m) {
    enum { FLUSH_CODE = 10, WRITE = 1 << 30 }; /* uc_ctl_flush_tb() */
    m->u.ctl(m->u.uc, FLUSH_CODE | WRITE);
}

/* All pages are to be asked for again. */
void forget_pages(struct mcu *m) {
    enum { FLUSH_TLB = 11, WRITE = 1 << 30 }; /* uc_ctl_flush_tlb() */
    m->u.ctl(m->u.uc, FLUSH_TLB | WRITE);
}

/* Translated code of this range is no longer what memory holds. */
void forget_range(struct mcu *m, uint32_t low, uint32_t high) {
    enum { REMOVE_CACHE = 9, ARGS_2 = 2 << 26, WRITE = 1 << 30 }; /* uc_ctl_remove_cache() */
    m->host = true;
    m->u.ctl(m->u.uc, REMOVE_CACHE | ARGS_2 | WRITE, (uint64_t)low, (uint64_t)high);
    m->host = false;
}

void forget_code(struct mcu *m, struct region *r, uint32_t offset, uint32_t length) {
    if (!r->mapped) {
        return;
    }
    for (uint32_t page = offset / PAGE; page * PAGE < offset + length; page++) {
        if (r->executed[page]) {
            uint32_t base = r->flash->base + (page * PAGE ^ r->flash->swapped);
            forget_range(m, base, base + PAGE);
            r->executed[page] = false;
            memset(r->blocks + page * PAGE / 2, 0, PAGE / 2);
        }
    }
}

/* What was noted of a session's loads beside code. */
void forget_loads(struct mcu *m) {
    for (size_t i = 0; i < m->region_count; i++) {
        const struct region *r = &m->regions[i];
        if (r->mapped) {
            memset(r->coded, 0, r->flash->size / PAGE * sizeof *r->coded);
            memset(r->loads, 0, r->flash->size / PAGE * sizeof *r->loads);
        }
    }
}

/* Each block is to be noted again. */
void forget_notes_of_blocks(struct mcu *m) {
    for (size_t i = 0; i < m->region_count; i++) {
        const struct region *r = &m->regions[i];
        for (uint32_t page = 0; r->mapped && page < r->flash->size / PAGE; page++) {
            uint8_t *blocks = r->blocks + page * PAGE / 2;
            for (uint32_t at = 0; r->executed[page] && at < PAGE / 2; at++) {
                blocks[at] &= (uint8_t)~BLOCK_NOTED;
            }
        }
    }
}

void forget_ram_code(struct mcu *m) {
    bool any = false;
    for (size_t i = 0; i < m->ram_count; i++) {
        struct ram *ram = &m->rams[i];
        for (uint32_t page = 0; !ram->constant && page < ram->size / PAGE; page++) {
            if (ram->executed[page]) {
                forget_range(m, ram->base + page * PAGE, ram->base + (page + 1) * PAGE);
                ram->executed[page] = false;
                any = true;
            }
        }
    }
    if (any) {
        forget_pages(m);
    }
}

void flash_hide(struct mcu *m, struct flash *f, bool hidden) {
    uint32_t offset;
    f->hidden = hidden;
    forget_pages(m);
    const struct region *r = hidden ? find_flash(m, m->block_pc, &offset) : NULL;
    if (r && r->flash == f) {
        fault(m, FAULT_FLASH_FETCH, f->first + offset, 0);
        stop(m, STOP_LOCKUP);
    }
}

void flash_changed(struct mcu *m, uint32_t offset, uint32_t length) {
    for (size_t i = 0; i < m->region_count; i++) {
        struct region *r = &m->regions[i];
        if (within(offset, r->flash->first, r->flash->size)) {
            forget_code(m, r, offset - r->flash->first, length);
            check_look(m, r, offset - r->flash->first, length);
        }
    }
}

/* Cells as an image has them; what it lacks is 0xff. Whether they differed. */
static bool load_cells(uint8_t *to, uint32_t size, size_t from, const uint8_t *image,
                       size_t length) {
    uint8_t fresh[PAGE];
    size_t given = from >= length ? 0 : length - from < size ? length - from : size;
    const uint8_t *cells = image + from;
    if (given < size) {
        memset(fresh, 0xff, sizeof fresh);
        if (given) {
            memcpy(fresh, image + from, given);
        }
        cells = fresh;
    }
    if (!memcmp(to, cells, size)) {
        return false;
    }
    memcpy(to, cells, size);
    return true;
}

void mcu_load_flash(struct mcu *m, const uint8_t *image, size_t length) {
    assert(!m->powered && length <= m->image_size);
    for (size_t i = 0; i < m->region_count; i++) {
        struct region *r = &m->regions[i];
        struct flash *f = r->flash;
        for (uint32_t at = 0; at < f->size; at += PAGE) {
            uint32_t size = f->size - at < PAGE ? f->size - at : PAGE;
            bool fresh = load_cells(f->cells + at, size, (size_t)f->first + at, image, length);
            if (f->check) {
                uint32_t first = at / f->check_unit;
                fresh |= load_cells(f->check + first, size / f->check_unit,
                                    (size_t)f->first + f->size + first, image, length);
            }
            if (fresh) {
                forget_code(m, r, at, size);
                check_look(m, r, at, size);
            }
        }
    }
}

/* Blocks */

static bool is_wide(uint16_t first) {
    return first >= 0xe800;
}

static uint8_t look_at_instruction(uint16_t first, uint16_t second) {
    if (first == 0xbf40 || (first == 0xf3af && second == 0x8004)) {
        return BLOCK_SEV;
    }
    if ((first & 0xffe8) == 0xb660) { /* CPSIE */
        return BLOCK_UNMASKS;
    }
    if ((first & 0xffe0) == 0xf380 && (second & 0xf000) == 0x8000) { /* MSR */
        return BLOCK_UNMASKS;
    }
    if ((first & 0xec00) == 0xec00 && (second & 0x0e00) == 0x0a00) { /* coprocessors 10, 11 */
        return BLOCK_FPU;
    }
    return 0;
}

/* `b .`, in 16 bits or in 32. */
static bool is_spin(struct mcu *m, uint32_t address, uint32_t size) {
    uint16_t first, second = 0;
    bool there = halfword_at(m, address, &first);
    if (size == 4) {
        halfword_at(m, address + 2, &second);
        return there && ((first == 0xf7ff && second == 0xbffe) ||
                         (is_application(m) && first == 0xfffe && second == 0xeaff));
    }
    return there && size == 2 && first == 0xe7fe;
}

/* What there is in a basic block; kept for blocks in flash until its cells change. */
uint8_t look_at_block(struct mcu *m, uint32_t address, uint32_t size) {
    uint32_t offset = 0;
    struct region *r = find_flash(m, address, &offset);
    if (r && r->mapped && r->blocks[offset / 2]) {
        return r->blocks[offset / 2];
    }
    const struct ram *rom = r ? NULL : find_ram(m, address, &offset);
    rom = rom && rom->constant ? rom : NULL;
    if (rom && rom->blocks[offset / 2]) {
        return rom->blocks[offset / 2];
    }
    uint8_t what = is_spin(m, address, size) ? BLOCK_SEEN | BLOCK_SPIN : BLOCK_SEEN;
    for (uint32_t at = 0; at < size && !is_application(m);) {
        uint16_t first, second = 0;
        if (!halfword_at(m, address + at, &first)) {
            return what;
        }
        if (is_wide(first)) {
            halfword_at(m, address + at + 2, &second);
        }
        what |= look_at_instruction(first, second);
        at += is_wide(first) ? 4 : 2;
    }
    if (rom) {
        what |= is_counting_loop(m, address) ? BLOCK_LOOP : 0;
        rom->blocks[offset / 2] = what;
    }
    if (r && r->mapped) {
        what |= !is_application(m) && is_counting_loop(m, address) ? BLOCK_LOOP : 0;
        if (check_is_broken_page(r, offset) && size <= r->flash->size - offset &&
            check_is_broken(r->flash, offset, size)) {
            what |= BLOCK_BROKEN;
        }
        r->blocks[offset / 2] = what;
        r->executed[offset / PAGE] = true;
        uint32_t last = offset + (size ? size - 1 : 0);
        if (last < r->flash->size) {
            r->executed[last / PAGE] = true;
        }
    }
    return what;
}

/* The address of the first instruction of the block that is for the FPU. */
uint32_t find_fpu_instruction(struct mcu *m, uint32_t address, uint32_t size) {
    for (uint32_t at = 0; at < size;) {
        uint16_t first, second = 0;
        if (!halfword_at(m, address + at, &first)) {
            break;
        }
        if (is_wide(first)) {
            halfword_at(m, address + at + 2, &second);
        }
        if (look_at_instruction(first, second) & BLOCK_FPU) {
            return address + at;
        }
        at += is_wide(first) ? 4 : 2;
    }
    return address;
}

/* Map */

static bool is_whole(uint32_t address, uint32_t size) {
    enum { MAPPED = 4096 };
    return !(address % MAPPED) && !(size % MAPPED) && size;
}

static int map(struct mcu *m, uint32_t address, uint32_t size, uint8_t *memory, unsigned may) {
    int error = m->u.mem_map_ptr(m->u.uc, address, size, may, memory);
    return error ? error : m->u.mem_map_ptr(m->u.uc, GUARD + address, size, 0, memory);
}

int mcu_add_ram(struct mcu *m, uint32_t address, uint32_t size, uint8_t *memory) {
    assert(m->ram_count < MOST_RAMS && is_whole(address, size) && memory);
    struct ram *ram = &m->rams[m->ram_count];
    *ram = (struct ram){.base = address,
                        .size = size,
                        .memory = memory,
                        .executed = calloc(size / PAGE, sizeof(bool))};
    if (!ram->executed) {
        return 1;
    }
    m->ram_count++;
    return map(m, address, size, memory, MAY_ALL);
}

int mcu_add_boot_rom(struct mcu *m, uint32_t address, uint32_t size, uint8_t *memory) {
    int error = mcu_add_ram(m, address, size, memory);
    if (!error) {
        struct ram *rom = &m->rams[m->ram_count - 1];
        rom->constant = true;
        rom->blocks = calloc(size / 2, 1);
        error = !rom->blocks;
    }
    return error;
}

void mcu_add_flash(struct mcu *m, struct flash *f) {
    assert(m->region_count < MOST_FLASHES && f->cells && f->size);
    assert(!f->store == f->apart);
    assert(f->size % 4 == 0);
    struct region *r = &m->regions[m->region_count];
    *r = (struct region){.flash = f, .mapped = !f->apart && is_whole(f->base, f->size)};
    f->first = m->image_size;
    m->image_size += f->size + (f->check ? f->size / f->check_unit : 0);
    if (f->check) {
        check_add(r);
    }
    if (r->mapped) {
        r->blocks = calloc(f->size / 2, 1);
        r->executed = calloc(f->size / PAGE, sizeof(bool));
        r->coded = calloc(f->size / PAGE, sizeof(bool));
        r->loads = calloc(f->size / PAGE, sizeof *r->loads);
        if (!r->blocks || !r->executed || !r->coded || !r->loads ||
            map(m, f->base, f->size, f->cells, MAY_READ | MAY_EXECUTE)) {
            abort();
        }
    }
    if (r->mapped && !m->fast_blocks) {
        m->fast_blocks = r->blocks;
        m->fast_base = f->base;
        m->fast_size = f->size;
        m->fast_first = f->first;
    }
    m->region_count++;
}

void flash_swap(struct mcu *m, struct flash *f, uint32_t bank) {
    assert(!bank || bank * 2 == f->size);
    if (f->swapped == bank) {
        return;
    }
    f->swapped = bank;
    m->swaps |= bank != 0;
    if (f->base == m->fast_base) {
        m->fast_size = bank ? 0 : f->size;
    }
    forget_all_code(m);
    forget_pages(m);
}

static void refuse_store(struct mcu *m, struct flash *f, uint32_t offset, unsigned size,
                         uint64_t value) {
    (void)size;
    fault(m, FAULT_FLASH_STRAY, f->first + offset, (uint32_t)value);
}

void mcu_add_rom(struct mcu *m, const struct flash_place *place) {
    assert(m->rom_count < MOST_FLASHES);
    struct flash *f = &m->roms[m->rom_count++];
    *f = (struct flash){.base = place->base,
                        .size = place->size,
                        .alias = place->alias,
                        .cells = place->cells,
                        .store = refuse_store};
    mcu_add_flash(m, f);
}

int mcu_add_plain(struct mcu *m, uint32_t address, uint32_t size) {
    assert(size);
    if (m->area_count == MOST_PLAIN_AREAS) {
        return 1;
    }
    m->areas[m->area_count++] = (struct plain_area){address, size};
    return 0;
}

void mcu_add_device(struct mcu *m, struct device *d) {
    assert(m->device_count < MOST_DEVICES && d->size && d->read && d->write && d->reset);
    size_t at = m->device_count++;
    for (; at && m->devices[at - 1]->base > d->base; at--) {
        m->devices[at] = m->devices[at - 1];
    }
    assert(!at || m->devices[at - 1]->base + m->devices[at - 1]->size <= d->base);
    m->devices[at] = d;
    d->due = NEVER;
}

int memory_connect(struct mcu *m) {
    enum { TLB_FILL = 131072, UNMAPPED = 112, PROTECTED = 896 };
    int error = m->u.mmio_map(m->u.uc, BUS, BUS, (void *)read_bus, m, (void *)write_bus, m);
    if (!error) {
        error = m->u.mmio_map(m->u.uc, NOTED, BUS, (void *)read_noted, m, NULL, NULL);
    }
    if (!error) {
        error = m->u.hook_add(m->u.uc, &m->hook[0], TLB_FILL, (void *)on_page, m, 1, 0);
    }
    if (!error) {
        /* Only there: every store is slow where there is any hook for memory. */
        error = m->u.hook_add(m->u.uc, &m->hook[1], UNMAPPED | PROTECTED, (void *)on_refused, m,
                              GUARD, GUARD + BUS - 1);
    }
    return error;
}
