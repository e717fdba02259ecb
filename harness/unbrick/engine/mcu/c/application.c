/* An application core (Armv7-A), as far as boot loaders need it: they run without interrupts, with
 * memory where its addresses say, and count time. Unicorn executes as a Cortex-A9, which has no
 * generic timer of its own that would follow the host's clock; what a Cortex-A15 has besides is
 * done here. Sources: Armv7-A ARM (DDI 0406), B8 for the timer; Arm PSCI (DEN 0022). */
#include "core.h"

enum { REG_CPSR = 3, CPSR_THUMB = 1 << 5 };

bool application_is_thumb(struct mcu *m) {
    return read_register(m, REG_CPSR) & CPSR_THUMB;
}

void application_leave_it_block(struct mcu *m) {
    enum { IT_BITS = 0x0600fc00 };
    uint32_t cpsr = read_register(m, REG_CPSR);
    if (cpsr & IT_BITS) {
        write_register(m, REG_CPSR, cpsr & ~(uint32_t)IT_BITS);
    }
}

static uint32_t general(struct mcu *m, uint32_t number) {
    return read_register(m, number < 13 ? REG_R0 + (int)number : number == 13 ? REG_SP : REG_LR);
}

static void set_general(struct mcu *m, uint32_t number, uint32_t value) {
    write_register(m, number < 13 ? REG_R0 + (int)number : number == 13 ? REG_SP : REG_LR, value);
}

/* Firmware that only looks at the time waits for something. After some looks without a store to a
 * register each takes longer, but never past what is due. */
static uint64_t read_counter(struct mcu *m) {
    enum { LOOKS_AT_ONCE = 16, LOOKS_A_STEP = 16, LOOK_NS = 1000, STEPS = 9 };
    m->now += m->setup.access_ns;
    if (++m->looks > LOOKS_AT_ONCE && m->end > m->now) {
        unsigned step = (m->looks - LOOKS_AT_ONCE) / LOOKS_A_STEP;
        m->now += sooner((uint64_t)LOOK_NS << (step < STEPS ? step : STEPS), m->end - m->now);
    }
    return clock_ticks(m->now, m->setup.systick_hz);
}

/* MRRC and MCRR: the counters; and the translation tables with 64 bits, which have no effect. */
static bool do_double(struct mcu *m, uint32_t code) {
    bool reads = code >> 20 & 1;
    uint32_t low = code >> 12 & 15, high = code >> 16 & 15;
    switch (code & 0x0fe00f0f) {
    case 0x0c400f0e:
        if (reads) {
            uint64_t count = read_counter(m);
            set_general(m, low, (uint32_t)count);
            set_general(m, high, (uint32_t)(count >> 32));
        }
        return true;
    case 0x0c400f02:
        return !reads;
    default:
        return false;
    }
}

/* MRC and MCR of the timer: its rate, and no compare. */
static bool do_single(struct mcu *m, uint32_t code) {
    bool reads = code >> 20 & 1, is_rate = !(code & 15) && !(code >> 5 & 7);
    if ((code >> 16 & 15) != 14) {
        return false;
    }
    if (reads) {
        set_general(m, code >> 12 & 15, is_rate ? m->setup.systick_hz : 0);
    }
    return true;
}

/* A call of the firmware below: PSCI. */
static void call(struct mcu *m) {
    enum { VERSION = 0, OFF = 8, RESET = 9, FUNCTION = 0xff, PSCI_1_0 = 0x10000 };
    switch (general(m, 0) & FUNCTION) {
    case VERSION:
        set_general(m, 0, PSCI_1_0);
        break;
    case OFF:
        stop(m, STOP_EXIT);
        break;
    case RESET:
        mcu_reset_system(m);
        break;
    default:
        set_general(m, 0, UINT32_MAX); /* not supported */
        break;
    }
}

static bool is_call(uint32_t code) {
    return (code & 0x0fd000f0) == 0x01400070 || /* HVC, SMC */
           (code & 0xfff0f000) == 0xf7e08000 || (code & 0xfff0f000) == 0xf7f08000;
}

/* The instruction at the PC, which Unicorn does not know. */
void application_take_invalid(struct mcu *m) {
    uint16_t first = 0, second = 0;
    halfword_at(m, m->pc, &first);
    halfword_at(m, m->pc + 2, &second);
    bool thumb = application_is_thumb(m), done = false;
    uint32_t code = thumb ? (uint32_t)first << 16 | second : (uint32_t)second << 16 | first;
    if (is_call(code)) {
        done = true;
        call(m);
    } else if ((code & 0x0fe00f00) == 0x0c400f00) {
        done = do_double(m, code);
    } else if ((code & 0x0f000f10) == 0x0e000f10) {
        done = do_single(m, code);
    }
    if (done) {
        m->pc += 4;
    } else {
        raise_fault(m, EXC_USAGE, UNDEFINSTR, m->pc);
    }
}

/* EXCP_* of Unicorn's target/arm/cpu.h. */
bool application_take_interrupt(struct mcu *m) {
    enum { HVC = 11, SMC = 13 };
    if (m->interrupt != HVC && m->interrupt != SMC) {
        return false;
    }
    call(m);
    return true;
}
