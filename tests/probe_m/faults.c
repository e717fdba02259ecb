/* What cannot be executed, and which fault it is. */
#include "probe.h"

#define NOWHERE 0x70000000u /* no memory is there */

static volatile uint32_t skip; /* bytes of the instruction that is at fault */

/* Where a function is; bit 0 of its address says that it is Thumb. */
#define PLACE(function) ((uint32_t)(function) & ~1u)

static void on_fault(struct frame *frame, uint32_t exc_return) {
    uint32_t exception;
    (void)exc_return;
    __asm__ volatile("mrs %0, ipsr" : "=r"(exception));
#if __ARM_ARCH >= 7
    uint32_t address = CFSR & 0x80 ? MMFAR : CFSR & 0x8000 ? BFAR : 0;
    tell("exception %: cfsr %, forced %, of %, if-then %", exception, CFSR, HFSR >> 30 & 1, address,
         frame->xpsr & 0x0600fc00);
    CFSR = CFSR;
    HFSR = HFSR;
#else
    tell("exception %", exception);
#endif
    frame->pc += skip;
    frame->xpsr = (frame->xpsr & ~0x0600fc00u) | 0x01000000;
}

static void expect(const char *what, uint32_t length) {
    say(what);
    skip = length;
}

static uint32_t load(uint32_t address) {
    register uint32_t r0 __asm__("r0") = address;
    __asm__ volatile("ldr r0, [r0]\n\tnop" : "+r"(r0) : : "memory");
    return r0;
}

static void store(uint32_t address) {
    register uint32_t r0 __asm__("r0") = address;
    __asm__ volatile("str r0, [r0]\n\tnop" : : "r"(r0) : "memory");
}

static void jump(uint32_t address) {
    /* The frame's PC is where it went, so the handler goes back by the link register. */
    register uint32_t r0 __asm__("r0") = address;
    __asm__ volatile("blx r0" : : "r"(r0) : "lr", "memory");
}

static void on_jump(struct frame *frame, uint32_t exc_return) {
    uint32_t there = frame->pc;
    skip = 0;
    on_fault(frame, exc_return);
    tell("went to %", there);
    frame->pc = frame->lr & ~1u;
}

static void handle_faults(handler *with) {
    for (int exception = HARD_FAULT; exception <= USAGE_FAULT; exception++) {
        handlers[exception] = with;
    }
}

static uint32_t words[4];

static void check_each(void) {
#if __ARM_ARCH < 7
    expect("not aligned: ", 2);
    load((uint32_t)words + 1);
    expect("not aligned: ", 2);
    store((uint32_t)words + 2);
    tell("words % %", words[0], words[1]);
#endif
    expect("undefined: ", 2);
    __asm__ volatile("udf #1");
    expect("load: ", 2);
    load(NOWHERE);
    expect("store: ", 2);
    store(NOWHERE + 4);
    handle_faults(on_jump);
    say("jump: ");
    jump(NOWHERE | 1);
#if __ARM_ARCH >= 7
    say("jump to registers: ");
    jump(0xe0000001);
#endif
    handle_faults(on_fault);
}

#if __ARM_ARCH >= 7

static void check_usage(void) {
    handle_faults(on_jump);
    say("not thumb: ");
    jump(PLACE(check_faults));
    handle_faults(on_fault);
    expect("wide: ", 4);
    __asm__ volatile("udf.w #1");
    expect("in a block: ", 2);
    __asm__ volatile("cmp r0, r0\n\tite eq\n\tldreq r0, [%0]\n\tmovne r0, #1"
                     :
                     : "r"(NOWHERE)
                     : "r0", "cc");
    tell("not aligned: %", load((uint32_t)words + 1));
    CCR |= 8;
    barrier();
    expect("not aligned: ", 2);
    load((uint32_t)words + 1);
    expect("not aligned, and others behind it: ", 2);
    __asm__ volatile("str %0, [%0, #1]\n\tstr %1, [%0]" : : "r"(words), "r"(5) : "memory");
    tell("words % %", words[0], words[1] == 0);
    CCR &= ~8u;
    barrier();
}

static void check_escalation(void) {
    SHCSR = 0;
    expect("not enabled: ", 2);
    load(NOWHERE);
    SHCSR = 7u << 16;
    expect("masked: ", 2);
    __asm__ volatile("cpsid i");
    load(NOWHERE);
    __asm__ volatile("cpsie i");
    expect("svc masked: ", 0);
    __asm__ volatile("cpsid i\n\tsvc 1\n\tcpsie i");
}

static void on_unprivileged(struct frame *frame, uint32_t exc_return) {
    (void)frame;
    (void)exc_return;
    __asm__ volatile("msr control, %0\n\tisb" : : "r"(0));
}

static void check_unprivileged(void) {
    handlers[SVC] = on_unprivileged;
    expect("private: ", 2);
    __asm__ volatile("msr control, %0\n\tisb" : : "r"(1));
    load(0xe000ed00);
    __asm__ volatile("svc 0" : : : "memory");
}
#endif

void check_faults(void) {
    handle_faults(on_fault);
    check_each();
#if __ARM_ARCH >= 7
    SHCSR = 7u << 16;
    say("enabled\n");
    check_each();
    check_usage();
    check_escalation();
    check_unprivileged();
    SHCSR = 0;
#endif
}
