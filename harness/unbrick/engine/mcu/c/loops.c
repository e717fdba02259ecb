/* Loops that only count: delays of firmware that does not sleep. What so many rounds of one come to
 * is known without running them: the counter moves on, and time passes.
 *
 * A loop is taken for one if it has a single way round, of a few instructions of 16 bits in one
 * page of flash or ROM, which
 *
 *   - count in a register, or in one word of memory, by the same step each round;
 *   - change other registers only to what a round gives them anew;
 *   - leave the loop by comparing the counter with what stays the same.
 *
 * The last rounds before anything is due are run as ever. So whoever looks at registers, flags and
 * memory finds what they find without this. */
#include <assert.h>
#include <string.h>

#include "core.h"

enum { MOST_INSTRUCTIONS = 12, MOST_TESTS = 3, REGISTERS = 8, STACK = 8, NO_REGISTER = 9 };
enum { EQ = 0, CS = 1, HI = 4, GE = 5, GT = 6, ALWAYS = 14 }; /* conditions, by pairs */

/* A value in a round: what the counter is as the round begins, or what a register is all the time,
 * or neither, plus a constant. */
struct value {
    bool counts;
    uint8_t own; /* a register, or NO_REGISTER */
    uint32_t constant;
};

/* For the loop to go on, the condition must hold of the two values compared. */
struct test {
    struct value one, other;
    uint8_t condition;
};

struct loop {
    struct value registers[REGISTERS + 1]; /* so far in the round; STACK is the last */
    uint32_t used, written;                /* registers: whose own value was used; that were set */
    uint8_t counter;                       /* a register; NO_REGISTER: a word of memory */
    bool has_cell;
    uint8_t base; /* the word is at this register's value plus the offset */
    uint32_t offset;
    struct value cell;
    struct value one, other; /* what was compared last */
    bool compared, only_zero;
    struct test tests[MOST_TESTS];
    unsigned test_count;
    uint32_t step, bytes;
    uint64_t ns; /* of a round */
};

static struct value own(uint8_t reg) {
    return (struct value){false, reg, 0};
}

static struct value constant(uint32_t number) {
    return (struct value){false, NO_REGISTER, number};
}

static struct value use(struct loop *l, uint8_t reg) {
    struct value value = l->registers[reg];
    l->used |= value.own < NO_REGISTER ? 1u << value.own : 0;
    return value;
}

static void set(struct loop *l, uint8_t reg, struct value value) {
    l->registers[reg] = value;
    l->written |= 1u << reg;
}

static void compare(struct loop *l, struct value one, struct value other, bool only_zero) {
    l->one = one;
    l->other = other;
    l->compared = true;
    l->only_zero = only_zero;
}

static bool is_same(struct value one, struct value other) {
    return one.counts == other.counts && one.own == other.own && one.constant == other.constant;
}

/* A word of memory is loaded from, or stored to: there is but one. */
static bool access_cell(struct loop *l, bool load, uint8_t reg, uint8_t base, uint32_t offset) {
    if (!is_same(use(l, base), own(base))) {
        return false;
    }
    if (!l->has_cell) {
        l->has_cell = true;
        l->base = base;
        l->offset = offset;
        l->cell = (struct value){true, NO_REGISTER, 0};
    }
    if (l->counter != NO_REGISTER || l->base != base || l->offset != offset) {
        return false;
    }
    if (load) {
        set(l, reg, l->cell);
    } else {
        l->cell = use(l, reg);
    }
    return true;
}

/* What one instruction does that is no branch; false: nothing is known of it. */
static bool take_instruction(struct loop *l, uint16_t code) {
    uint8_t d = code & 7, n = code >> 3 & 7, high = code >> 8 & 7;
    uint32_t small = code >> 6 & 7, large = code & 0xff;
    if (code == 0xbf00) { /* NOP */
        return true;
    }
    switch (code >> 11) {
    case 3: { /* ADDS, SUBS with a number of 3 bits */
        if (!(code & 0x400)) {
            return false;
        }
        struct value value = use(l, n), before = value;
        value.constant += code & 0x200 ? -small : small;
        set(l, d, value);
        compare(l, code & 0x200 ? before : value, constant(code & 0x200 ? small : 0),
                !(code & 0x200));
        return true;
    }
    case 5: /* CMP with a number */
        compare(l, use(l, high), constant(large), false);
        return true;
    case 6:
    case 7: { /* ADDS, SUBS with a number of 8 bits */
        bool subtracts = code >> 11 == 7;
        struct value value = use(l, high), before = value;
        value.constant += subtracts ? -large : large;
        set(l, high, value);
        compare(l, subtracts ? before : value, constant(subtracts ? large : 0), !subtracts);
        return true;
    }
    case 8: /* CMP of two registers */
        if ((code & 0xffc0) != 0x4280) {
            return false;
        }
        compare(l, use(l, d), use(l, n), false);
        return true;
    case 12:
    case 13: /* STR, LDR */
        return access_cell(l, code & 0x800, d, n, (code >> 6 & 31) * 4);
    case 18:
    case 19: /* the same on the stack */
        return access_cell(l, code & 0x800, high, STACK, large * 4);
    default:
        return false;
    }
}

static uint32_t find_target(uint32_t pc, uint16_t code, bool conditional) {
    uint32_t offset = conditional ? (uint32_t)(int8_t)code * 2u
                                  : ((uint32_t)(code & 0x7ff) ^ 0x400u) * 2u - 0x800u;
    return pc + 4 + offset;
}

/* The loop goes on if a condition holds. */
static bool add_test(struct loop *l, uint8_t condition) {
    uint8_t pair = condition >> 1;
    bool known =
        pair == EQ || (!l->only_zero && (pair == CS || pair == HI || pair == GE || pair == GT));
    if (!l->compared || !known || l->test_count == MOST_TESTS) {
        return false;
    }
    l->tests[l->test_count++] = (struct test){l->one, l->other, condition};
    return true;
}

/* Once round from `head`, which lies in `page`. */
static bool go_round(const struct mcu *m, struct loop *l, const uint8_t *page, uint32_t head) {
    uint32_t at = head, block = head;
    for (unsigned i = 0; i < MOST_INSTRUCTIONS; i++) {
        if (at / PAGE != head / PAGE || at % PAGE > PAGE - 6) { /* a block ends where a page does */
            return false;
        }
        uint16_t code = get16(page + at % PAGE);
        bool jumps = code >> 11 == 28, conditional = code >> 12 == 13 && (code >> 8 & 15) < ALWAYS;
        if (!jumps && !conditional) {
            if (!take_instruction(l, code)) {
                return false;
            }
            at += 2;
            continue;
        }
        uint32_t target = find_target(at, code, conditional), next = at + 2;
        uint8_t condition = code >> 8 & 15;
        if (conditional && !add_test(l, target == head ? condition : condition ^ 1)) {
            return false;
        }
        l->bytes += next - block;
        l->ns += (uint64_t)(next - block) * m->pace >> 10;
        at = block = jumps || target == head ? target : next;
        if (at == head) {
            return true;
        }
    }
    return false;
}

/* The register that counts, where it is no word of memory: the first one that is added to itself.
 */
static uint8_t find_counter(const uint8_t *page, uint32_t head) {
    uint32_t end = head % PAGE + 2 * MOST_INSTRUCTIONS;
    for (uint32_t at = head % PAGE; at + 2 <= PAGE && at < end; at += 2) {
        uint16_t code = get16(page + at);
        if (code >> 12 == 3) {
            return code >> 8 & 7;
        }
    }
    return NO_REGISTER;
}

static bool read_loop(const struct mcu *m, struct loop *l, const uint8_t *page, uint32_t head,
                      uint8_t counter) {
    memset(l, 0, sizeof *l);
    l->counter = counter;
    for (uint8_t reg = 0; reg <= STACK; reg++) {
        l->registers[reg] = own(reg);
    }
    if (counter != NO_REGISTER) {
        l->registers[counter] = (struct value){true, NO_REGISTER, 0};
    }
    if (!go_round(m, l, page, head)) {
        return false;
    }
    struct value end = counter == NO_REGISTER ? l->cell : l->registers[counter];
    l->step = end.constant;
    return end.counts && l->step && !(l->used & l->written) && l->ns &&
           (counter != NO_REGISTER || l->has_cell);
}

static bool find_loop(struct mcu *m, struct loop *l, uint32_t head) {
    const uint8_t *page = memory_at(m, head - head % PAGE, PAGE, false);
    return page && (read_loop(m, l, page, head, NO_REGISTER) ||
                    read_loop(m, l, page, head, find_counter(page, head)));
}

bool is_counting_loop(struct mcu *m, uint32_t head) {
    struct loop l;
    return find_loop(m, &l, head);
}

/* Rounds */

static bool holds(uint8_t condition, uint32_t one, uint32_t other) {
    bool met = false;
    switch (condition >> 1) {
    case EQ:
        met = one == other;
        break;
    case CS:
        met = one >= other;
        break;
    case HI:
        met = one > other;
        break;
    case GE:
        met = (int32_t)one >= (int32_t)other;
        break;
    case GT:
        met = (int32_t)one > (int32_t)other;
        break;
    default:
        assert(false);
    }
    return met != (condition & 1);
}

static uint32_t read_own(struct mcu *m, uint8_t reg) {
    return read_register(m, reg == STACK ? REG_SP : REG_R0 + reg);
}

/* What a value is in round number `round`, with the counter at `count` in round 0. */
static uint32_t value_in(struct mcu *m, const struct loop *l, struct value value, uint32_t count,
                         uint64_t round) {
    uint32_t number = value.constant;
    number += value.counts ? count + l->step * (uint32_t)round : 0;
    return number + (value.own < NO_REGISTER ? read_own(m, value.own) : 0);
}

/* Rounds until the counting value leaves the range of its kind, at most `most`. */
static uint64_t rounds_in_range(uint32_t value, uint32_t step, bool is_signed, uint64_t most) {
    int64_t from = is_signed ? (int32_t)value : (int64_t)value;
    int64_t high = is_signed ? INT32_MAX : UINT32_MAX, low = is_signed ? INT32_MIN : 0;
    int64_t by = (int32_t)step;
    return sooner(most, (uint64_t)(by > 0 ? (high - from) / by : (from - low) / -by));
}

/* Through how many rounds after this one, at most, a test goes on to hold; it may be fewer. */
static uint64_t count_rounds(struct mcu *m, const struct loop *l, const struct test *t,
                             uint32_t count, uint64_t most) {
    uint32_t one = value_in(m, l, t->one, count, 0), other = value_in(m, l, t->other, count, 0);
    uint8_t pair = t->condition >> 1;
    if (!holds(t->condition, one, other) || (t->one.counts && t->other.counts)) {
        return 0;
    }
    if (!t->one.counts && !t->other.counts) {
        return most;
    }
    if (pair == EQ) { /* it goes on while they are not the same */
        uint32_t left = t->one.counts ? other - one : one - other;
        bool up = l->step == 1, down = l->step == UINT32_MAX;
        return (t->condition & 1) && (up || down) ? sooner(most, (up ? left : -left) - 1) : 0;
    }
    bool is_signed = pair == GE || pair == GT;
    uint64_t low = 0, high = rounds_in_range(t->one.counts ? one : other, l->step, is_signed, most);
    while (low < high) { /* as long as it counts in one direction, it changes once at most */
        uint64_t middle = (low + high + 1) / 2;
        bool goes_on = holds(t->condition, value_in(m, l, t->one, count, middle),
                             value_in(m, l, t->other, count, middle));
        low = goes_on ? middle : low;
        high = goes_on ? high : middle - 1;
    }
    return low;
}

/* The word that counts; NULL: it is no RAM, or there is code around it. */
static uint8_t *find_cell(struct mcu *m, const struct loop *l) {
    uint32_t address = read_own(m, l->base) + l->offset, offset = 0;
    const struct ram *ram = find_ram(m, address, &offset);
    if (!ram || address % 4 || ram->executed[offset / PAGE]) {
        return NULL;
    }
    return memory_at(m, address, 4, true);
}

void skip_rounds(struct mcu *m, uint32_t head) {
    enum { ROUNDS_LEFT = 2 };
    struct loop l;
    if (mpu_may_be_mixed(m, head) || !find_loop(m, &l, head) ||
        (m->end - m->now) / l.ns <= ROUNDS_LEFT) {
        return;
    }
    uint8_t *cell = l.counter == NO_REGISTER ? find_cell(m, &l) : NULL;
    if (l.counter == NO_REGISTER && (!cell || mpu_is_on(m))) {
        return;
    }
    uint32_t count = cell ? get32(cell) : read_own(m, l.counter);
    uint64_t rounds = sooner((m->end - m->now) / l.ns - ROUNDS_LEFT, UINT32_MAX);
    for (unsigned i = 0; i < l.test_count; i++) {
        rounds = sooner(rounds, count_rounds(m, &l, &l.tests[i], count, rounds));
    }
    count += l.step * (uint32_t)rounds;
    if (cell) {
        put32(cell, count);
    } else {
        write_register(m, REG_R0 + l.counter, count);
    }
    m->now += rounds * l.ns;
    m->bytes += rounds * l.bytes;
}
