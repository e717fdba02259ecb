/* Bit-banding, vectors elsewhere, reset. */
#include "probe.h"

void check_bits(void) {
#if defined(HAS_BIT_BAND)
    static volatile uint32_t word;
    uint32_t alias = 0x22000000 + ((uint32_t)&word - 0x20000000) * 32;
    word = 0x80000001;
    REGISTER(alias + 4 * 5) = 0xffffffff;
    REGISTER(alias) = 0xfffffffe;
    BYTE(alias + 4 * 9) = 1;
    tell("bits: % % % %", word, REGISTER(alias + 4 * 31), REGISTER(alias), BYTE(alias + 4 * 5));
#endif
}

static void on_call(struct frame *frame, uint32_t exc_return) {
    (void)exc_return;
    frame->r0 = 0x77;
}

void check_vectors(void) {
#if __ARM_ARCH >= 7
    static uint32_t table[64] __attribute__((aligned(512)));
    register uint32_t r0 __asm__("r0") = 0;
    const volatile uint32_t *old = (const volatile uint32_t *)VTOR;
    for (int i = 0; i < 64; i++) {
        table[i] = old[i];
    }
    VTOR = (uint32_t)table;
    barrier();
    handlers[SVC] = on_call;
    __asm__ volatile("svc 0" : "+r"(r0) : : "memory");
    tell("vectors in ram: svc gave %", r0);
    VTOR = (uint32_t)old;
    barrier();
#else
    (void)on_call;
#endif
}

/* Kept over a reset, since it is not in .bss. */
static volatile uint32_t times __attribute__((section(".kept")));
static volatile uint32_t mark __attribute__((section(".kept")));

void check_reset(void) {
    enum { MARK = 0x5eed1234 };
    if (mark != MARK) {
        mark = MARK;
        times = 0;
    }
    times++;
    tell("start % ends, enabled %, systick %", times, NVIC_ISER, SYST_CSR & 3);
    if (times < 3) {
        AIRCR = 0x05fa0004;
        barrier();
        for (;;) {
        }
    }
}
