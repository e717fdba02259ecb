/* The board as a whole: the bus to the NOR, power, and the run loop. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "parts.h"

void show_array(struct board *b, bool hide) {
    enum { NONE = 0, READ_EXEC = 1 | 4 };
    if (hide == b->hidden) {
        return;
    }
    b->hidden = hide;
    if (b->u.uc) {
        b->u.mem_protect(b->u.uc, 0, NOR_MODELLED, hide ? NONE : READ_EXEC);
        if (hide) { /* while it is hidden, nobody finds a page of it */
            forget_pages(b);
        }
    }
}

/* Show or hide the array alias at 0, and drop translated code of what was changed. */
static void nor_view(struct board *b) {
    bool hide = false;
    for (int i = 0; i < NOR_CHIPS; i++) {
        hide |= b->chips[i].output != OUT_ARRAY || b->chips[i].job.kind != BUSY_NO;
    }
    if (hide == b->hidden) {
        return;
    }
    if (b->u.uc && hide && b->block_pc < NOR_TOTAL) {
        b->hidden = hide;
        fatal(b, FAULT_BUSY_FETCH, b->block_pc, 0);
        return;
    }
    show_array(b, hide);
    if (!hide && b->dirty_high > b->dirty_low) {
        code_nor_changed(b, b->dirty_low, b->dirty_high);
        b->dirty_low = UINT32_MAX;
        b->dirty_high = 0;
    }
}

static bool pair_shows_half(struct board *b, uint32_t lanes) {
    return (lanes & 1 && chip_shows_half(b, 0)) || (lanes & 2 && chip_shows_half(b, 1));
}

/* The lanes of the operation that has just begun which will end it with an error. One that would
 * fail silently goes well where nobody could see it. */
static uint32_t let_fail(struct board *b, uint32_t lanes) {
    static const uint32_t kinds[] = {
        [BUSY_WORD] = OP_WORD, [BUSY_BUFFER] = OP_BUFFER, [BUSY_ERASE] = OP_ERASE};
    const struct job *j = &b->chips[lanes & 1 ? 0 : 1].job;
    uint32_t failing = 0;
    bool silent = false;
    bool spoils = false;
    uint64_t times = 1;
    assert(j->kind == BUSY_WORD || j->kind == BUSY_BUFFER || j->kind == BUSY_ERASE);
    for (size_t i = 0; i < b->worn_count; i++) {
        struct worn *w = &b->worn[i];
        if (!(w->kinds & 1u << kinds[j->kind]) || j->word * 4 < w->first || j->word * 4 > w->last) {
            continue;
        }
        times = w->times > times ? w->times : times;
        if (w->good > 0) {
            w->good--;
        } else if (w->bad > 0 && (!w->silent || pair_shows_half(b, lanes & w->lanes))) {
            w->bad -= w->bad != UINT32_MAX;
            failing |= w->lanes & lanes;
            silent = w->silent != 0;
            spoils = w->spoils != 0;
        }
    }
    for (int i = 0; i < NOR_CHIPS; i++) {
        struct job *part = &b->chips[i].job;
        if (failing & 1u << i) {
            part->fails = true;
            part->silent = silent;
            part->spoils = spoils && part->kind != BUSY_ERASE;
        }
        if (lanes & 1u << i) {
            part->end = part->start + (part->end - part->start) * times;
        }
    }
    return spoils && j->kind != BUSY_ERASE ? failing | failing << SPOILT : failing;
}

static uint32_t nor_read(struct board *b, uint32_t offset, unsigned size) {
    assert(size == 1 || size == 2 || size == 4);
    assert(offset < NOR_TOTAL);
    uint32_t word = offset / 4;
    uint32_t value = chip_read(b, 0, word) | (uint32_t)chip_read(b, 1, word) << 16;
    value >>= 8 * (offset & 3);
    return size == 4 ? value : value & ((1u << 8 * size) - 1);
}

static void nor_write(struct board *b, uint32_t offset, unsigned size, uint32_t value) {
    assert(size == 1 || size == 2 || size == 4);
    assert(offset < NOR_TOTAL);
    if (size == 1 || (offset & (size - 1))) {
        fault(b, FAULT_COMMAND, offset, value);
        return;
    }
    uint32_t word = offset / 4, lanes = size == 4 ? 3 : offset & 2 ? 2 : 1;
    if (size == 2 && lanes == 2) {
        value <<= 16;
    }
    uint32_t starting = 0;
    for (int i = 0; i < NOR_CHIPS; i++) {
        chip_settle(b, i);
        uint16_t half = (uint16_t)(value >> 16 * i);
        if (lanes & 1u << i && chip_begins(&b->chips[i], word, half)) {
            starting |= 1u << i;
        }
    }
    if (starting && b->op_count == b->cut_before) {
        stop(b, STOP_CUT);
        return;
    }
    b->job_serial = (uint32_t)b->op_count;
    for (int i = 0; i < NOR_CHIPS; i++) {
        if (lanes & 1u << i) {
            chip_write(b, i, word, (uint16_t)(value >> 16 * i));
        }
    }
    if (starting) {
        trace_op(b, starting, let_fail(b, starting));
    }
    nor_view(b);
}

uint64_t board_mmio_nor_read(void *uc, uint64_t offset, unsigned size, void *user) {
    (void)uc;
    struct board *b = user;
    if (!takes_place(b)) {
        return 0;
    }
    return nor_read(b, (uint32_t)offset, size);
}

void board_mmio_nor_write(void *uc, uint64_t offset, unsigned size, uint64_t value, void *user) {
    (void)uc;
    struct board *b = user;
    if (takes_place(b) && !b->stuck) {
        nor_write(b, (uint32_t)offset, size, (uint32_t)value);
    }
}

static uint64_t next_wake(struct board *b) {
    uint64_t next = NEVER;
    if (gic_passes(b, 34)) {
        for (int i = 0; i < 2; i++) {
            next = sooner(next, timer_next(b, &b->timers[i]));
        }
    }
    for (int i = 0; i < 2; i++) {
        if (gic_passes(b, 37 + (unsigned)i)) {
            next = sooner(next, uart_next(b, &b->uarts[i]));
        }
    }
    return next;
}

/* Has the CPU execute `count` instructions, 0 for as many as there come; returns Unicorn's error.
 */
static int execute(struct board *b, size_t count) {
    enum { THUMB = 0x20 };
    uint32_t cpsr = 0;
    assert(b->powered && !b->stuck && !b->hit.pending);
    assert(b->u.uc);
    b->u.reg_read(b->u.uc, REG_CPSR, &cpsr);
    return b->u.emu_start(b->u.uc, b->pc | (cpsr & THUMB ? 1 : 0), UINT32_MAX, 0, count);
}

static int stopped_by_error(struct board *b, int error) {
    if (!b->stuck) {
        b->block_pc = b->pc;
        fatal(b, FAULT_EXCEPTION, b->pc, (uint32_t)error);
    }
    return b->stuck;
}

int run_board(struct board *b, uint64_t until) {
    assert(b->powered && !b->stuck);
    b->until = until;
    b->reason = STOP_TIME;
    look_again(b);
    while (b->now < b->end) {
        if (b->waiting) {
            uint64_t wake = next_wake(b);
            if (wake > b->end) {
                b->now = b->end;
                break;
            }
            b->now = later(b->now, wake);
            b->waiting = false;
        }
        b->stopping = false;
        int error = execute(b, 0);
        if (b->hit.pending) {
            return stopped_by_watch(b);
        }
        b->u.reg_read(b->u.uc, REG_PC, &b->pc);
        if (error) {
            return stopped_by_error(b, error);
        }
        b->waiting = !b->stopping;
        b->recopied = false;
    }
    if (b->reason != STOP_TIME) {
        return b->reason;
    }
    for (int i = 0; i < 2; i++) {
        if (uart_shows(b, &b->uarts[i])) {
            b->reason = STOP_OUTPUT;
        }
    }
    return b->reason;
}

/* Run until virtual time `until`, or until the host should look (see enum stop_reason). */
int board_run(struct board *b, uint64_t until) {
    if (!b->powered) {
        b->now = later(b->now, until);
        return STOP_TIME;
    }
    if (b->stuck) {
        b->now = later(b->now, until);
        return b->stuck == STOP_FAULT ? STOP_HALTED : b->stuck;
    }
    return b->stretches ? stretch_run(b, until) : run_board(b, until);
}

static void reset_devices(struct board *b) {
    for (int i = 0; i < NOR_CHIPS; i++) {
        chip_reset(&b->chips[i]);
    }
    for (int i = 0; i < 2; i++) {
        uart_reset(b, &b->uarts[i]);
        timer_reset(&b->timers[i]);
    }
    memset(&b->gic, 0, sizeof b->gic);
}

struct board *board_new(uint8_t *nor, uint8_t *sram, uint8_t *copies) {
    assert(nor && sram && copies);
    struct board *b = calloc(1, sizeof *b);
    if (!b) {
        return NULL;
    }
    b->nor = nor;
    b->sram = sram;
    b->code = code_new(copies);
    b->cut_before = NEVER;
    b->passed = NOWHERE;
    b->dirty_low = UINT32_MAX;
    b->uarts[0].watch = '\n';
    b->uarts[1].watch = 0xc0;
    reset_devices(b);
    return b;
}

void board_free(struct board *b) {
    for (int i = 0; i < 2; i++) {
        uart_free(&b->uarts[i]);
    }
    stretches_free(b);
    notes_free(&b->notes);
    code_free(b->code);
    free(b->ops);
    free(b->op_data);
    free(b);
}

void board_attach(struct board *b, const struct unicorn *unicorn) {
    b->u = *unicorn;
}

void board_power_on(struct board *b, uint32_t pc) {
    reset_devices(b);
    forget_sram_code(b);
    b->powered = true;
    b->waiting = b->stopping = false;
    b->stuck = 0;
    b->pc = pc;
    b->block_pc = UINT32_MAX;
    nor_view(b);
    stretches_begin(b);
}

void board_power_off(struct board *b) {
    if (!b->powered) {
        return;
    }
    assert(!b->hit.pending);
    stretches_end(b);
    b->powered = false;
    for (int i = 0; i < NOR_CHIPS; i++) {
        chip_lose_power(b, i);
    }
    reset_devices(b);
    b->block_pc = UINT32_MAX;
    nor_view(b);
}

uint64_t board_now(const struct board *b) {
    return b->now;
}

uint64_t board_blocks(const struct board *b) {
    return b->blocks;
}

void settle_chips(struct board *b) {
    for (int i = 0; i < NOR_CHIPS; i++) {
        chip_settle(b, i);
    }
}

/* Carry out what has come to its end, so that the host sees the cells as they are now. */
void board_settle(struct board *b) {
    if (!stretches_follow(b)) {
        settle_chips(b);
    }
}

void board_arrive(struct board *b) {
    stretches_arrive(b);
}

void board_leave(struct board *b) {
    stretches_leave(b);
}

void board_elapse(struct board *b, uint64_t ns) {
    b->now += ns;
}

/* Without power: nothing that was is of any more interest, time and counting begin anew. */
void board_forget(struct board *b) {
    assert(!b->powered);
    b->now = b->blocks = 0;
    b->op_count = b->op_data_size = b->fault_count = 0;
    for (int i = 0; i < 2; i++) {
        b->uarts[i].tx.head = b->uarts[i].tx.count = 0;
        b->uarts[i].overruns = 0;
    }
    reset_devices(b);
}

void board_cut_before(struct board *b, uint64_t op) {
    stretches_leave(b);
    b->cut_before = op;
}

bool are_locked_down(const struct board *b, uint32_t offset) {
    assert(offset < NOR_TOTAL);
    bool down = true;
    for (int i = 0; i < NOR_CHIPS; i++) {
        down = down && (b->chips[i].lock[offset / NOR_BLOCK] & LOCK_DOWN);
    }
    return down;
}

/* Whether the block at `offset` stays locked until the next power-up, on every chip. */
bool board_locked_down(struct board *b, uint32_t offset) {
    if (stretches_follow(b) && offset < NOR_MODELLED) {
        return stretches_locked_down(b) >> offset / NOR_BLOCK & 1;
    }
    stretches_arrive(b);
    return are_locked_down(b, offset);
}

void board_wear(struct board *b, const struct worn *worn, size_t count) {
    assert(count <= WORN_MOST);
    stretches_leave(b);
    memcpy(b->worn, worn, count * sizeof *worn);
    b->worn_count = count;
}

/* From a hook in the middle of a run: return from board_run() with STOP_BREAK, before the
 * instruction that is about to be executed. */
void board_break(struct board *b) {
    b->stopping = true;
    b->reason = STOP_BREAK;
    b->end = 0;
    b->u.emu_stop(b->u.uc);
}

/* Execute one instruction, also one that accesses what is watched if it is to be passed; waiting
 * for an interrupt is over at once. Unicorn takes an IT block for one instruction. */
int board_step(struct board *b, bool pass) {
    if (!b->powered || b->stuck) {
        return b->stuck;
    }
    stretches_leave(b);
    b->waiting = b->stopping = false;
    b->reason = STOP_TIME;
    b->until = b->end = NEVER;
    b->passed = pass ? b->pc : NOWHERE;
    int error = execute(b, 1);
    b->passed = NOWHERE;
    b->recopied = false;
    if (b->hit.pending) {
        return stopped_by_watch(b);
    }
    b->u.reg_read(b->u.uc, REG_PC, &b->pc);
    return error ? stopped_by_error(b, error) : b->reason;
}

uint32_t board_pc(struct board *b) {
    stretches_arrive(b);
    return b->pc;
}

void board_set_pc(struct board *b, uint32_t pc) {
    stretches_leave(b);
    b->pc = pc;
    b->waiting = false;
}
