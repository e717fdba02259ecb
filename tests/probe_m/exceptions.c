/* Entry, return, and which exception comes first. */
#include "probe.h"

static volatile uint32_t order[16], order_count;

static void note(uint32_t what) {
    if (order_count < 16) {
        order[order_count++] = what;
    }
}

/* What was noted since the last call, as one number. */
static uint32_t noted(void) {
    uint32_t all = 0;
    for (uint32_t i = 0; i < order_count; i++) {
        all = all << 4 | (order[i] & 15);
    }
    order_count = 0;
    return all;
}

static uint32_t running(void) {
    uint32_t exception;
    __asm__ volatile("mrs %0, ipsr" : "=r"(exception));
    return exception;
}

/* Whether no other exception is active, where the core says so. */
static uint32_t to_thread(void) {
    return __ARM_ARCH >= 7 ? ICSR >> 11 & 1 : 0;
}

static void pend(uint32_t interrupt) {
    NVIC_ISPR = 1u << interrupt;
    barrier();
}

static void set_priority(uint32_t interrupt, uint32_t priority) {
    uint32_t shift = 8 * (interrupt & 3);
    NVIC_IPR(interrupt) = (NVIC_IPR(interrupt) & ~(0xffu << shift)) | priority << shift;
}

/* SVC */

static void on_svc(struct frame *frame, uint32_t exc_return) {
    uint8_t number = BYTE(frame->pc - 2);
    tell("svc % with r0 %, back by %, active %", (uint32_t)number, frame->r0, exc_return >> 1 & 7,
         ICSR & 0x1ff);
    frame->r0 += number;
}

void check_calls(void) {
    register uint32_t r0 __asm__("r0") = 7;
    handlers[SVC] = on_svc;
    __asm__ volatile("svc 5" : "+r"(r0) : : "memory");
    tell("svc gave %", r0);
}

/* Priorities */

static void on_low(struct frame *frame, uint32_t exc_return) { /* interrupt 1 */
    (void)frame;
    (void)exc_return;
    note(1);
    pend(2); /* comes at once */
    note(1);
    pend(3); /* has to wait: it is not more urgent */
    note(1);
    tell("in %: pending %, active %, back to thread %", running(), NVIC_ISPR & 0xffff,
         NVIC_ICER & 0xffff, to_thread());
}

static void on_high(struct frame *frame, uint32_t exc_return) { /* interrupt 2 */
    (void)frame;
    note(2);
    tell("in %: back by %, to thread %", running(), exc_return >> 1 & 7, to_thread());
}

static void on_same(struct frame *frame, uint32_t exc_return) { /* interrupt 3 */
    (void)frame;
    note(3);
    tell("in %: back by %", running(), exc_return >> 1 & 7);
}

static void on_pendsv(struct frame *frame, uint32_t exc_return) {
    (void)frame;
    (void)exc_return;
    note(PENDSV);
}

static void check_groups(void) {
#if __ARM_ARCH >= 7
    AIRCR = 0x05fa0000 | 7 << 8; /* all bits are for the order alone: nobody preempts */
    barrier();
    pend(1);
    tell("one group: %", noted());
    AIRCR = 0x05fa0000 | 5 << 8; /* two bits */
    barrier();
    set_priority(1, 0x40);
    set_priority(2, 0x70);
    pend(1);
    tell("same group: %", noted());
    AIRCR = 0x05fa0000;
    set_priority(1, 0x80);
    set_priority(2, 0x40);
#endif
}

void check_priorities(void) {
    handlers[INTERRUPT_0 + 1] = on_low;
    handlers[INTERRUPT_0 + 2] = on_high;
    handlers[INTERRUPT_0 + 3] = on_same;
    handlers[PENDSV] = on_pendsv;
    SHPR3 = 0xc0u << 16; /* PendSV */
    set_priority(1, 0x80);
    set_priority(2, 0x40);
    set_priority(3, 0x80);
    pend(1);
    tell("off: %, pending %", noted(), NVIC_ISPR);
    NVIC_ICPR = 2;
    NVIC_ISER = 0xe;
    barrier();
    tell("taken back: %, pending %", noted(), NVIC_ISPR);
    ICSR = 1u << 28;
    barrier();
    tell("pendsv: %", noted());
    pend(1);
    tell("nested: %", noted());
    __asm__ volatile("cpsid i");
    ICSR = 1u << 28;
    NVIC_ISPR = 0xe;
    barrier();
    tell("held: % pending %", noted(), ICSR >> 12 & 0x1ff);
    __asm__ volatile("cpsie i");
    barrier();
    tell("chained: %", noted());
    NVIC_ICER = 4;
    pend(1);
    tell("without 2: %, pending %", noted(), NVIC_ISPR);
    NVIC_ISER = 4;
    barrier();
    tell("with 2: %", noted());
    check_groups();
}

/* Masks */

#if __ARM_ARCH >= 7

static void set_basepri(uint32_t priority) {
    __asm__ volatile("msr basepri, %0\n\tisb" : : "r"(priority) : "memory");
}

static void check_others(void) {
    uint32_t value;
    set_basepri(0x40);
    pend(2);
    tell("basepri 40: %", noted());
    set_basepri(0x60);
    barrier();
    tell("basepri 60: %", noted());
    pend(3);
    __asm__ volatile("msr basepri_max, %0\n\tmrs %0, basepri" : "=r"(value) : "0"(0x80));
    tell("no more than %: %", value, noted());
    set_basepri(0);
    barrier();
    tell("basepri 0: %", noted());
    __asm__ volatile("cpsid f");
    pend(2);
    __asm__ volatile("mrs %0, faultmask" : "=r"(value));
    tell("faultmask %: %", value, noted());
    __asm__ volatile("cpsie f");
    barrier();
    tell("no faultmask: %", noted());
}
#endif

void check_masks(void) {
    uint32_t value;
    __asm__ volatile("cpsid i");
    pend(2);
    __asm__ volatile("mrs %0, primask" : "=r"(value));
    tell("primask %: %", value, noted());
    __asm__ volatile("msr primask, %0" : : "r"(0));
    barrier();
    tell("no primask: %", noted());
#if __ARM_ARCH >= 7
    check_others();
#endif
}

/* Stacks */

static volatile uint32_t frame_at, frame_xpsr, frame_return;

static void on_frame(struct frame *frame, uint32_t exc_return) {
    frame_at = (uint32_t)frame;
    frame_xpsr = frame->xpsr;
    frame_return = exc_return;
}

static uint32_t call_at(uint32_t stack_pointer) {
    uint32_t back;
    __asm__ volatile("mov r4, sp\n\t"
                     "mov sp, %1\n\t"
                     "svc 0\n\t"
                     "mov %0, sp\n\t"
                     "mov sp, r4"
                     : "=r"(back)
                     : "r"(stack_pointer)
                     : "r4", "memory");
    return back;
}

/* A thread with a stack and no privileges. */
static void go(bool process_stack, bool unprivileged) {
    uint32_t control = (process_stack ? 2 : 0) | (unprivileged ? 1 : 0);
    __asm__ volatile("msr control, %0\n\tisb" : : "r"(control) : "memory");
}

#if __ARM_ARCH >= 7
static void on_privileges(struct frame *frame, uint32_t exc_return) {
    (void)frame;
    (void)exc_return;
    go(true, false);
}

static void check_unprivileged(void) {
    uint32_t control, primask;
    go(true, true);
    __asm__ volatile("mrs %0, control" : "=r"(control));
    go(false, false); /* in vain */
    __asm__ volatile("cpsid i");
    __asm__ volatile("mrs %0, primask" : "=r"(primask));
    handlers[SVC] = on_privileges;
    __asm__ volatile("svc 0" : : : "memory");
    go(false, false);
    tell("unprivileged: control %, primask %", control, primask);
}
#endif

void check_stacks(void) {
    static uint64_t room[32];
    uint32_t top = (uint32_t)(room + 32), back;
    handlers[SVC] = on_frame;
    back = call_at(top);
    tell("aligned: frame % below, xpsr %, back %", top - frame_at, frame_xpsr >> 9 & 1, top - back);
    back = call_at(top - 4);
    tell("not: frame % below, xpsr %, back %", top - frame_at, frame_xpsr >> 9 & 1, top - back);
    __asm__ volatile("msr psp, %0" : : "r"(top));
    go(true, false);
    __asm__ volatile("svc 0" : : : "memory");
    go(false, false);
    tell("process stack: frame % below, back by %", top - frame_at, frame_return >> 1 & 7);
    __asm__ volatile("mrs %0, psp" : "=r"(back));
    tell("and % after", top - back);
#if __ARM_ARCH >= 7
    check_unprivileged();
#endif
}

/* SysTick */

static volatile uint32_t ticks;

static void on_systick(struct frame *frame, uint32_t exc_return) {
    (void)frame;
    (void)exc_return;
    ticks++;
}

void check_systick(void) {
    handlers[SYSTICK] = on_systick;
    SYST_RVR = 999;
    SYST_CVR = 5;
    tell("systick off: % of %, control %", SYST_CVR, SYST_RVR, SYST_CSR & 0x10003);
    SYST_CSR = 5;
    while (!(SYST_CSR >> 16 & 1)) {
    }
    tell("counted, ticks %, within %", ticks, SYST_CVR <= 999);
    SYST_CSR = 7;
    while (ticks < 3) {
    }
    SYST_CSR = 4;
    tell("ticks: at least 3");
    ICSR = 1u << 26;
    barrier();
    ticks = 0;
    __asm__ volatile("cpsid i");
    ICSR = 1u << 26;
    barrier();
    ICSR = 1u << 25;
    __asm__ volatile("cpsie i");
    barrier();
    tell("taken back: ticks %", ticks);
}

/* Waiting */

void check_waiting(void) {
    uint32_t rounds = 0;
    ticks = 0;
    SYST_RVR = 9999;
    SYST_CVR = 0;
    SYST_CSR = 7;
    while (ticks < 2) {
        __asm__ volatile("wfi");
        rounds++;
    }
    tell("wfi: rounds %", rounds < 20);
    __asm__ volatile("cpsid i");
    ticks = 0;
    __asm__ volatile("wfi"); /* wakes up all the same, without the handler */
    tell("masked: ticks %, pending %", ticks, ICSR >> 26 & 1);
    __asm__ volatile("cpsie i");
    barrier();
    tell("then: ticks %", ticks);
    /* A page that nobody has read yet: an emulator may have to find it first. */
    (void)REGISTER(((uint32_t)check_waiting & ~0xffffu) + 0x10000);
    __asm__ volatile("sev\n\twfe" : : : "memory"); /* the event was there */
    ticks = 0;
    while (!ticks) {
        __asm__ volatile("wfe");
    }
    SYST_CSR = 0;
    __asm__ volatile("yield\n\tnop");
    tell("wfe: woken");
}
