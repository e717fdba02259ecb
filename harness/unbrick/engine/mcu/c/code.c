/* Which code is executed, for a host that asks: by the addresses of the code, not by its cells. */
#include "core.h"

enum { BLOCK = 8, SIZE_MOST = 0xff };

/* Where a block begins, in halfwords of all flash and then of every RAM. False: it is elsewhere. */
static bool find_place(const struct mcu *m, uint32_t address, uint32_t *place) {
    uint32_t first = m->image_size;
    for (size_t i = 0; i < m->region_count; i++) {
        const struct flash *f = m->regions[i].flash;
        bool second = f->alias != NOWHERE && address - f->alias < f->size;
        if (second || address - f->base < f->size) {
            *place = (f->first + address - (second ? f->alias : f->base)) / 2;
            return true;
        }
    }
    for (size_t i = 0; i < m->ram_count; i++) {
        if (address - m->rams[i].base < m->rams[i].size) {
            *place = (first + address - m->rams[i].base) / 2;
            return true;
        }
        first += m->rams[i].size;
    }
    return false;
}

static void on_block(void *uc, uint64_t address, uint32_t size, void *user) {
    struct mcu *m = user;
    uint32_t place = 0;
    (void)uc;
    if (m->code_sizes && find_place(m, (uint32_t)address, &place)) {
        uint32_t halfwords = size / 2 < SIZE_MOST ? size / 2 : SIZE_MOST;
        if (halfwords > m->code_sizes[place]) {
            m->code_sizes[place] = (uint8_t)halfwords;
        }
    }
}

bool mcu_watch_code(struct mcu *m, uint8_t *sizes) {
    m->code_sizes = sizes;
    if (sizes && !m->code_hook) {
        if (m->u.hook_add(m->u.uc, &m->code_hook, BLOCK, (void *)on_block, m, 1, 0)) {
            return false;
        }
        forget_all_code(m);
    }
    return true;
}
