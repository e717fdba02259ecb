/* What QEMU cannot be asked about: cycles, registers that nobody models, a fault in a function of
 * its own, and waiting for nothing. */
#include <stdint.h>

#define REGISTER(address) (*(volatile uint32_t *)(address))

enum { ABSENT = 0x70000000, PLAIN = 0x40001000, POLLS = 5000 };

extern uint32_t stack_end; /* of the linker script */

static volatile uint32_t result[4] __attribute__((used));

static void count_cycles(void) {
    REGISTER(0xe000edfc) = 1u << 24; /* DEMCR.TRCENA */
    REGISTER(0xe0001004) = 0;
    REGISTER(0xe0001000) = 1;     /* DWT */
    REGISTER(0xe000e014) = 15999; /* SysTick: 1 ms of a clock of 16 MHz */
    REGISTER(0xe000e018) = 0;
    REGISTER(0xe000e010) = 5;
    while (!(REGISTER(0xe000e010) >> 16 & 1)) {
    }
    result[0] = REGISTER(0xe0001004);
    REGISTER(0xe000e010) = 0;
}

static void poll(void) {
    for (int i = 0; i < POLLS && !(REGISTER(PLAIN) & 1); i++) {
    }
    REGISTER(PLAIN) = 0x1234;
    result[1] = REGISTER(PLAIN);
}

__attribute__((noinline)) static void go_wrong(void) {
    result[2] = REGISTER(ABSENT);
}

__attribute__((used)) static void run(void) {
    count_cycles();
    poll();
    go_wrong();
    result[3] = 1;
    for (;;) {
        __asm__ volatile("wfi");
    }
}

__attribute__((naked)) void start(void) {
    __asm__ volatile("bl run");
}

/* Skips the load, which has 16 bits. */
__attribute__((naked)) static void on_fault(void) {
    __asm__ volatile("mrs r0, msp\n\t"
                     "ldr r1, [r0, #24]\n\t"
                     "adds r1, #2\n\t"
                     "str r1, [r0, #24]\n\t"
                     "bx lr");
}

__attribute__((section(".vectors"), used)) static const struct {
    uint32_t *stack;
    void (*handlers[15])(void);
} VECTORS = {&stack_end, {start, on_fault, on_fault}};
