/* What both chips have in common: the vectors, and how a program begins and ends. */
#include "chip.h"

#define SCB_VTOR (*(volatile uint32_t *)0xE000ED08u)
#define SCB_AIRCR (*(volatile uint32_t *)0xE000ED0Cu)
#define AIRCR_SYSRESETREQ 0x05FA0004u /* with its key */

extern uint32_t stack_top[];
int main(void);

static void reset(void) {
    main();
    for (;;) {
    }
}

static void fault(void) {
    for (;;) {
    }
}

/* Words 7 to 10 are reserved by the core. The application has its header there (image.h). */
__attribute__((section(".vectors"))) const uintptr_t vectors[16] = {
    (uintptr_t)stack_top, (uintptr_t)reset, (uintptr_t)fault, (uintptr_t)fault,
    (uintptr_t)fault,     (uintptr_t)fault, (uintptr_t)fault,
};

void print(const char *text) {
    while (*text != '\0') {
        uart_put((uint8_t)*text++);
    }
}

void reset_chip(void) {
    SCB_AIRCR = AIRCR_SYSRESETREQ;
    for (;;) {
    }
}

void start_program(uint32_t start) {
    const uint32_t *const words = (const uint32_t *)(uintptr_t)start;
    SCB_VTOR = start;
    __asm volatile("msr msp, %0\n bx %1" ::"r"(words[0]), "r"(words[1]));
    __builtin_unreachable();
}
