/* The memory protection unit. Source: Armv7-M ARM (DDI 0403), B3.5; Armv8-M ARM (DDI 0553), B9. */
#include <assert.h>

#include "core.h"

enum { ENABLE = 1, HFNMIENA = 2, PRIVDEFENA = 4, REGION_ENABLE = 1, REGION_VALID = 1 << 4 };

static bool is_v8(const struct mcu *m) {
    return m->setup.core == CORE_M33;
}

bool is_privileged(struct mcu *m) {
    if (read_register(m, REG_IPSR) & 0x1ff) {
        return true;
    }
    return !(read_register(m, REG_CONTROL) & 1);
}

/* Whether execution_priority(m, WITH_OTHERS) is below 0. */
static bool is_negative_priority(struct mcu *m) {
    uint32_t faults = 1u << EXC_NMI | 1u << EXC_HARD;
    return m->nvic.active[0] & faults || (is_main(m) && read_register(m, REG_FAULTMASK) & 1);
}

/* Whether it has a say now: handlers of faults may go without it. */
bool mpu_is_on(struct mcu *m) {
    uint32_t control = m->scs.mpu.control;
    if (!(control & ENABLE)) {
        return false;
    }
    return control & HFNMIENA || !is_negative_priority(m);
}

/* First and last address of a region; false when it is off. */
static bool find_bounds(const struct mcu *m, unsigned region, uint32_t *first, uint32_t *last) {
    uint32_t base = m->scs.mpu.base[region], limit = m->scs.mpu.limit[region];
    if (!(limit & REGION_ENABLE)) {
        return false;
    }
    if (is_v8(m)) {
        *first = base & ~31u;
        *last = limit | 31u;
        return *first <= *last;
    }
    unsigned bits = (limit >> 1 & 31) + 1;
    if (bits < 5) {
        return false;
    }
    uint32_t mask = bits == 32 ? UINT32_MAX : (1u << bits) - 1;
    *first = base & ~mask;
    *last = *first | mask;
    return true;
}

static unsigned permissions_v7(uint32_t attributes, bool privileged) {
    static const uint8_t rights[8][2] = {/* user, privileged */
                                         {0, 0},
                                         {0, MAY_READ | MAY_WRITE},
                                         {MAY_READ, MAY_READ | MAY_WRITE},
                                         {MAY_READ | MAY_WRITE, MAY_READ | MAY_WRITE},
                                         {0, 0},
                                         {0, MAY_READ},
                                         {MAY_READ, MAY_READ},
                                         {MAY_READ, MAY_READ}};
    unsigned may = rights[attributes >> 24 & 7][privileged];
    bool never_executed = attributes >> 28 & 1;
    return may & MAY_READ && !never_executed ? may | MAY_EXECUTE : may;
}

static unsigned permissions_v8(uint32_t base, bool privileged) {
    bool any = base >> 1 & 1, read_only = base >> 2 & 1, never_executed = base & 1;
    if (!privileged && !any) {
        return 0;
    }
    return MAY_READ | (read_only ? 0 : MAY_WRITE) | (never_executed ? 0 : MAY_EXECUTE);
}

static bool subregion_is_off(const struct mcu *m, unsigned region, uint32_t offset) {
    uint32_t attributes = m->scs.mpu.limit[region];
    unsigned bits = (attributes >> 1 & 31) + 1;
    if (is_v8(m) || bits < 8) {
        return false;
    }
    return attributes >> 8 >> (offset >> (bits - 3)) & 1;
}

unsigned mpu_permissions(struct mcu *m, uint32_t address, bool privileged) {
    const struct mpu *p = &m->scs.mpu;
    unsigned hits = 0, may = 0;
    for (unsigned region = m->setup.mpu_regions; region-- > 0;) {
        uint32_t first, last;
        if (!find_bounds(m, region, &first, &last) || address < first || address > last ||
            subregion_is_off(m, region, address - first)) {
            continue;
        }
        if (!hits++) {
            may = is_v8(m) ? permissions_v8(p->base[region], privileged)
                           : permissions_v7(p->limit[region], privileged);
        }
        if (!is_v8(m)) {
            return may; /* the highest number wins */
        }
    }
    if (hits) {
        return hits == 1 ? may : 0; /* Armv8-M: where regions overlap nothing may be done */
    }
    return privileged && p->control & PRIVDEFENA ? MAY_ALL : 0;
}

/* Whether parts of a region that are smaller than a page are off. */
static bool has_small_parts(const struct mcu *m, unsigned region, uint32_t first, uint32_t last) {
    return !is_v8(m) && m->scs.mpu.limit[region] >> 8 & 0xff && last - first < 8 * PAGE;
}

/* Whether an edge of a region, or of a part of it, is within the page. */
bool mpu_is_mixed(struct mcu *m, uint32_t page) {
    if (!mpu_may_be_mixed(m, page)) {
        return false;
    }
    for (unsigned region = 0; region < m->setup.mpu_regions; region++) {
        uint32_t first, last, end = page + PAGE - 1;
        if (!find_bounds(m, region, &first, &last) || first > end || last < page) {
            continue;
        }
        if (first > page || last < end || has_small_parts(m, region, first, last)) {
            return true;
        }
    }
    return false;
}

static void add_mixed(struct mpu *p, uint32_t address) {
    uint32_t page = address - address % PAGE, last = page + PAGE - 1;
    p->mixed_first = p->mixed && p->mixed_first < page ? p->mixed_first : page;
    p->mixed_last = p->mixed && p->mixed_last > last ? p->mixed_last : last;
    p->mixed |= 1ull << (page / PAGE & 63);
}

/* Find the pages that an edge may be in. */
static void find_mixed(struct mcu *m) {
    struct mpu *p = &m->scs.mpu;
    p->mixed = 0;
    for (unsigned region = 0; p->control & ENABLE && region < m->setup.mpu_regions; region++) {
        uint32_t first, last;
        if (!find_bounds(m, region, &first, &last)) {
            continue;
        }
        bool parts = has_small_parts(m, region, first, last);
        for (uint32_t i = 0; parts && i < (last - first) / PAGE; i++) {
            add_mixed(p, first + i * PAGE);
        }
        if (parts || first % PAGE) {
            add_mixed(p, first);
        }
        if (parts || last % PAGE != PAGE - 1) {
            add_mixed(p, last);
        }
    }
}

/* Whether code at an address that is in a page of several kinds may be executed. */
bool mpu_lets_execute(struct mcu *m, uint32_t address) {
    if (!mpu_is_mixed(m, address & ~(PAGE - 1)) || !mpu_is_on(m)) {
        return true;
    }
    return mpu_permissions(m, address, is_privileged(m)) & MAY_EXECUTE;
}

enum { TYPE = 0x90, CTRL = 0x94, RNR = 0x98, RBAR = 0x9c, MAIR0 = 0xc0, MAIR1 = 0xc4 };

/* Which region a base or limit register is about: RBAR and RLAR have aliases for three others. */
static unsigned find_region(const struct mcu *m, uint32_t offset) {
    unsigned alias = (offset - RBAR) / 8;
    return is_v8(m) && alias ? (m->scs.mpu.number & ~3u) + alias : m->scs.mpu.number;
}

uint32_t mpu_read(struct mcu *m, uint32_t offset) {
    const struct mpu *p = &m->scs.mpu;
    switch (offset) {
    case TYPE:
        return m->setup.mpu_regions << 8;
    case CTRL:
        return p->control;
    case RNR:
        return p->number;
    case MAIR0:
    case MAIR1:
        return is_v8(m) ? p->mair[offset == MAIR1] : 0;
    default:
        break;
    }
    unsigned region = find_region(m, offset);
    if (offset < RBAR || offset >= RBAR + 32 || region >= m->setup.mpu_regions) {
        return 0;
    }
    if ((offset - RBAR) & 4) {
        return p->limit[region];
    }
    return is_v8(m) ? p->base[region] : (p->base[region] & ~31u) | (region & 0xf);
}

static void write_region(struct mcu *m, uint32_t offset, uint32_t value) {
    struct mpu *p = &m->scs.mpu;
    bool is_base = !((offset - RBAR) & 4);
    if (is_base && !is_v8(m) && value & REGION_VALID) {
        p->number = value & 0xf;
    }
    unsigned region = find_region(m, offset);
    if (region < m->setup.mpu_regions) {
        *(is_base ? &p->base[region] : &p->limit[region]) = value;
    }
}

void mpu_write(struct mcu *m, uint32_t offset, uint32_t value) {
    struct mpu *p = &m->scs.mpu;
    if (!m->setup.mpu_regions) {
        return;
    }
    if (offset == CTRL) {
        p->control = value & 7;
    } else if (offset == RNR) {
        p->number = value & 0xff;
    } else if (offset == MAIR0 || offset == MAIR1) {
        p->mair[offset == MAIR1] = value;
    } else if (offset >= RBAR && offset < RBAR + 32) {
        write_region(m, offset, value);
    }
    find_mixed(m);
    forget_pages(m);
}

/* Whether handlers of faults see another memory than others. */
bool mpu_has_exceptions(const struct mcu *m) {
    return m->scs.mpu.control & ENABLE && !(m->scs.mpu.control & HFNMIENA);
}
