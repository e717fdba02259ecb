/* Entry, return, and which exception comes first. */
#include "probe.h"

static volatile uint32_t seen, order[16], order_count;

static void note(uint32_t what) {
    if (order_count < 16) {
        order[order_count++] = what;
    }
}

static void on_svc(struct frame *frame, uint32_t exc_return) {
    uint8_t number = BYTE(frame->pc - 2);
    tell("svc % with r0 %, back by %", (uint32_t)number, frame->r0, exc_return >> 1 & 7);
    frame->r0 += number;
}

static uint32_t call_supervisor(uint32_t value) {
    register uint32_t r0 __asm__("r0") = value;
    __asm__ volatile("svc 5" : "+r"(r0) : : "memory");
    return r0;
}

static void on_pendsv(struct frame *frame, uint32_t exc_return) {
    (void)frame;
    (void)exc_return;
    note(PENDSV);
}

static void on_systick(struct frame *frame, uint32_t exc_return) {
    (void)frame;
    (void)exc_return;
    seen++;
    note(SYSTICK);
}

void check_exceptions(void) {
    handlers[SVC] = on_svc;
    handlers[PENDSV] = on_pendsv;
    handlers[SYSTICK] = on_systick;
    tell("svc gave %", call_supervisor(7));
    ICSR = 1u << 28;
    barrier();
    tell("pendsv: % %", order_count, order[0]);
    SYST_RVR = 999;
    SYST_CVR = 0;
    SYST_CSR = 7;
    while (seen < 3) {
    }
    SYST_CSR = 0;
    tell("systick came");
}
