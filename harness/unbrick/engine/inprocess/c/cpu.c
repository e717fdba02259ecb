/* What Unicorn needs to be told of code and pages, and what it gets wrong. */
#include <assert.h>
#include <string.h>

#include "parts.h"

enum { MEM_WRITE = 17, MEM_FETCH = 18 };               /* uc_mem_type */
enum { MAY_READ = 1, MAY_WRITE = 2, MAY_EXECUTE = 4 }; /* uc_prot */

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

/* Pages of the SRAM hold something else, up to the one before `end`. */
static void forget_sram_pages(struct board *b, uint32_t first, uint32_t end) {
    for (uint32_t page = first; page < end; page++) {
        uint64_t address = SRAM_BASE + page * (uint64_t)PAGE;
        if (b->executed[page]) {
            forget_code(b, address, address + PAGE);
        }
        b->executed[page] = false;
        code_sram_changed(b, page);
    }
    forget_pages(b);
}

void forget_sram_code(struct board *b) {
    forget_sram_pages(b, 0, SRAM_SIZE / PAGE);
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
    if (b->now >= b->end || b->recopied) { /* the block is not executed: it comes again */
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

void board_changed(struct board *b, uint32_t low, uint32_t high) {
    assert(low < high);
    if (high <= NOR_MODELLED) {
        stretch_loads(b, low, high);
        code_nor_changed(b, low, high);
        forget_pages(b);
    } else {
        assert(low >= SRAM_BASE && high - SRAM_BASE <= SRAM_SIZE);
        forget_sram_pages(b, (low - SRAM_BASE) / PAGE, (high - 1 - SRAM_BASE) / PAGE + 1);
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

/* A page of the NOR, which is executed as a copy. Each kind of access asks for itself: a fetch must
 * not find what a load was given. While loads are noted, a load must not find what a fetch was
 * given either. A page of which nothing is left to be noted is as always, and so is one that may
 * not be read now. */
static void find_nor_page(struct board *b, uint64_t address, int type, struct page *page) {
    bool noting = b->notes.sources;
    if (type != MEM_WRITE) {
        stretch_reads(b, (uint32_t)address);
    }
    if (type == MEM_FETCH) {
        page->permissions = MAY_EXECUTE;
        if (!b->hidden) {
            page->address = code_address(b, (uint32_t)address);
            page->permissions |= noting || b->watch_count ? 0 : MAY_READ;
        }
    } else if (type == MEM_WRITE) {
        page->permissions = MAY_WRITE;
    } else {
        page->permissions = MAY_READ;
        if (noting && !b->hidden && !notes_are_complete(&b->notes, (uint32_t)address, PAGE)) {
            page->address = NOTED + address;
        }
    }
}

/* A page of the SRAM, which is executed as a copy until it is written after that. Then it is
 * executed where it lies. There Unicorn sees each store to it, and takes the long way for it. */
static void find_sram_page(struct board *b, uint64_t address, int type, struct page *page) {
    uint32_t number = (uint32_t)(address - SRAM_BASE) / PAGE;
    if (type == MEM_WRITE && code_is_copied(b, number)) {
        code_sram_changed(b, number);
        b->executed[number] = true;
        b->recopied = true;
        forget_pages(b);
    }
    page->permissions = MAY_READ | MAY_WRITE;
    if (b->executed[number]) {
        page->permissions |= MAY_EXECUTE;
    } else if (type == MEM_FETCH) {
        page->address = code_address(b, (uint32_t)address);
        page->permissions = MAY_EXECUTE | (b->watch_count ? 0 : MAY_READ);
    } else if (code_is_copied(b, number)) {
        page->permissions = MAY_READ;
    }
}

bool board_on_page(void *uc, uint64_t address, int type, struct page *page, void *user) {
    struct board *b = user;
    if (type != MEM_FETCH) {
        leave_it_block(b, uc);
    }
    page->address = address;
    page->permissions = MAY_READ | MAY_WRITE | MAY_EXECUTE;
    if (address < NOR_MODELLED) {
        find_nor_page(b, address, type, page);
    } else if (address - SRAM_BASE < SRAM_SIZE) {
        find_sram_page(b, address, type, page);
    } else if (b->giving_up) {
        page->address = address - GIVEN_UP + COPIED;
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
    stretches_leave(b);
    b->code_sizes = sizes;
}
