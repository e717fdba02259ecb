/* What Unicorn needs to be told of code and pages, and what it gets wrong. */
#include <assert.h>
#include <string.h>

#include "parts.h"

/* Translated code of this range is no longer what memory holds. */
void forget_code(struct board *b, uint64_t low, uint64_t high) {
    enum { REMOVE_CACHE = 9, ARGS_2 = 2 << 26, WRITE = 1 << 30 }; /* uc_ctl_remove_cache() */
    if (b->u.uc) {
        b->u.ctl(b->u.uc, REMOVE_CACHE | ARGS_2 | WRITE, low, high);
    }
}

/* All pages are to be asked for again. */
void forget_pages(struct board *b) {
    enum { FLUSH_TLB = 11, WRITE = 1 << 30 }; /* uc_ctl_flush_tlb() */
    if (b->u.uc) {
        b->u.ctl(b->u.uc, FLUSH_TLB | WRITE);
    }
}

void forget_sram_code(struct board *b) {
    forget_code(b, SRAM_BASE, SRAM_BASE + SRAM_SIZE);
    memset(b->executed, 0, sizeof b->executed);
    forget_pages(b);
}

/* Remembers how long the block at an address is, in halfwords; the NOR first, then the SRAM. */
static void note_code(struct board *b, uint32_t address, uint32_t size) {
    assert(b->code_sizes && size > 0);
    uint32_t at = address < NOR_MODELLED ? address : address - SRAM_BASE + NOR_MODELLED;
    uint32_t length = size / 2 < 255 ? size / 2 : 255;
    if (at < NOR_MODELLED + SRAM_SIZE && b->code_sizes[at / 2] < length) {
        b->code_sizes[at / 2] = (uint8_t)length;
    }
}

void board_on_block(void *uc, uint64_t address, uint32_t size, void *user) {
    struct board *b = user;
    if (b->now >= b->end) { /* the block is not executed: it will be announced again */
        b->stopping = true;
        b->u.emu_stop(uc);
        return;
    }
    b->block_pc = (uint32_t)address;
    b->blocks++;
    b->now += size;
    if (b->notes.sources) {
        note_block(b, (uint32_t)address, size);
    }
    if (b->code_sizes) {
        note_code(b, (uint32_t)address, size);
    }
}

/* Before it asks for a page, Unicorn 2.1.4 puts the CPU into the state of the instruction that
 * needs it, also into its IT block, and does not take that back when the block goes on: without
 * this the next block begins inside an IT block. */
void leave_it_block(struct board *b, void *uc) {
    enum { IT_BITS = 0x0600fc00 };
    uint32_t cpsr = 0;
    b->u.reg_read(uc, REG_CPSR, &cpsr);
    if (cpsr & IT_BITS) {
        cpsr &= ~(uint32_t)IT_BITS;
        b->u.reg_write(uc, REG_CPSR, &cpsr);
    }
}

/* A page of the NOR while loads are noted. One of which nothing is left to be noted is as always,
 * and so is one that may not be read now. Each kind of access asks for itself: a load must not find
 * what a fetch was given. */
static void find_noted_page(struct board *b, uint64_t address, int type, struct page *page) {
    enum { WRITE = 17, FETCH = 18, MAY_READ = 1, MAY_WRITE = 2, MAY_EXECUTE = 4 };
    if (type == FETCH || type == WRITE) {
        page->permissions = type == FETCH ? MAY_EXECUTE : MAY_WRITE;
    } else if (b->hidden || notes_are_complete(&b->notes, (uint32_t)address, PAGE)) {
        page->permissions = MAY_READ;
    } else {
        page->address = NOTED + address;
        page->permissions = MAY_READ;
    }
}

/* Unicorn takes the long way for each store to a page that may be executed: so a page of SRAM may
 * from the first time on that it is. */
bool board_on_page(void *uc, uint64_t address, int type, struct page *page, void *user) {
    enum { FETCH = 18, READ_WRITE = 3, EXECUTE = 4 };
    struct board *b = user;
    if (type != FETCH) {
        leave_it_block(b, uc);
    }
    uint64_t number = (address - SRAM_BASE) / PAGE;
    page->address = address;
    page->permissions = READ_WRITE | EXECUTE;
    if (address < NOR_MODELLED && b->notes.sources) {
        find_noted_page(b, address, type, page);
    }
    if (number >= SRAM_SIZE / PAGE) {
        return true;
    }
    if (type == FETCH) {
        b->executed[number] = true;
    }
    if (!b->executed[number]) {
        page->permissions = READ_WRITE;
    }
    return true;
}

/* A fetch or a read of the array alias while a chip does not answer with its array. */
bool board_on_protected(void *uc, int type, uint64_t address, int size, int64_t value, void *user) {
    (void)uc;
    (void)size;
    (void)value;
    struct board *b = user;
    enum { WRITE_PROT = 22, FETCH_PROT = 24 };
    if (b->hidden && address < NOR_MODELLED && type != WRITE_PROT && !b->hit.pending) {
        fatal(b, type == FETCH_PROT ? FAULT_BUSY_FETCH : FAULT_BUSY_READ, (uint32_t)address, 0);
    }
    return false;
}

/* `sizes`: a byte for each halfword of the modelled NOR and the SRAM, or NULL to stop noting. */
void board_watch_code(struct board *b, uint8_t *sizes) {
    b->code_sizes = sizes;
}
