/* Registers that nobody models: each holds what was written. Firmware that waits for one of them to
 * change does so in vain, and that is counted. */
#include <assert.h>
#include <string.h>

#include "core.h"

/* Where a register is kept; NULL when there is no more room. Address 0 is no register. */
static struct plain *find(struct mcu *m, uint32_t address) {
    uint32_t at = (address >> 2) * 2654435761u >> 20;
    assert(PLAIN_SLOTS == 1u << 12 && address);
    for (unsigned tries = 0; tries < 64; tries++, at = (at + 1) % PLAIN_SLOTS) {
        if (m->plain[at].address == address) {
            return &m->plain[at];
        }
        if (!m->plain[at].address) {
            m->plain[at].address = address;
            return &m->plain[at];
        }
    }
    return NULL;
}

uint32_t plain_read(struct mcu *m, uint32_t address, unsigned size) {
    struct plain *p = find(m, address & ~3u);
    if (!p) {
        return 0;
    }
    p->reads++;
    p->run = p->pc == m->block_pc ? p->run + 1 : 0;
    p->vain = p->run > p->vain ? p->run : p->vain;
    p->pc = m->block_pc;
    return part_of(p->value, address, size);
}

uint32_t plain_look(struct mcu *m, uint32_t address) {
    const struct plain *p = find(m, address & ~3u);
    return p ? p->value : 0;
}

void plain_write(struct mcu *m, uint32_t address, unsigned size, uint32_t value) {
    struct plain *p = find(m, address & ~3u);
    if (!p) {
        return;
    }
    p->writes++;
    p->run = 0;
    p->value = with_part(p->value, address, size, value);
}

void plain_set_reset(struct mcu *m, uint32_t address, uint32_t value) {
    struct plain *p = find(m, address & ~3u);
    if (p) {
        m->plain_reset[p - m->plain] = value;
        p->value = value;
    }
}

/* After a reset. */
void plain_reset_all(struct mcu *m) {
    for (unsigned i = 0; i < PLAIN_SLOTS; i++) {
        m->plain[i].value = m->plain_reset[i];
        m->plain[i].run = 0;
    }
}

void plain_forget(struct mcu *m) {
    for (unsigned i = 0; i < PLAIN_SLOTS; i++) {
        struct plain *p = &m->plain[i];
        p->reads = p->writes = p->vain = p->run = p->pc = 0;
    }
}

size_t mcu_plain(const struct mcu *m, struct plain *out, size_t capacity) {
    size_t count = 0;
    for (unsigned i = 0; i < PLAIN_SLOTS; i++) {
        if (m->plain[i].reads || m->plain[i].writes) {
            if (count < capacity) {
                out[count] = m->plain[i];
            }
            count++;
        }
    }
    return count;
}
