/* The beginning of the probe, its vectors, and its voice. */
#include <stdarg.h>

#include "probe.h"

extern uint32_t bss, bss_end, stack_end; /* of the linker script */

handler *volatile handlers[64];

static uint32_t semihost(uint32_t operation, const void *argument) {
    register uint32_t r0 __asm__("r0") = operation;
    register const void *r1 __asm__("r1") = argument;
    __asm__ volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
    return r0;
}

void say(const char *text) {
    enum { SYS_WRITE0 = 4 };
    semihost(SYS_WRITE0, text);
}

static char *put_number(char *at, uint32_t value) {
    bool begun = false;
    for (int shift = 28; shift >= 0; shift -= 4) {
        uint32_t digit = value >> shift & 15;
        begun = begun || digit || !shift;
        if (begun) {
            *at++ = "0123456789abcdef"[digit];
        }
    }
    return at;
}

void tell(const char *text, ...) {
    char line[160], *at = line;
    va_list numbers;
    va_start(numbers, text);
    for (; *text && at < line + 140; text++) {
        if (*text == '%') {
            at = put_number(at, va_arg(numbers, uint32_t));
        } else {
            *at++ = *text;
        }
    }
    va_end(numbers);
    *at++ = '\n';
    *at = 0;
    say(line);
}

void quit(void) {
    enum { SYS_EXIT = 0x18, APPLICATION_EXIT = 0x20026 };
    say("the end\n");
    semihost(SYS_EXIT, (const void *)APPLICATION_EXIT);
    for (;;) {
    }
}

/* Called by every vector, with the frame on the stack that was in use. */
__attribute__((used)) static void dispatch(struct frame *frame, uint32_t exc_return) {
    uint32_t exception;
    __asm__ volatile("mrs %0, ipsr" : "=r"(exception));
    if (handlers[exception & 63]) {
        handlers[exception & 63](frame, exc_return);
        return;
    }
    tell("exception % that nobody waits for, at %", exception, frame->pc);
    quit();
}

__attribute__((naked)) static void enter(void) {
    __asm__ volatile("mov r1, lr\n\t"
                     "movs r0, #4\n\t"
                     "tst r0, r1\n\t"
                     "beq 1f\n\t"
                     "mrs r0, psp\n\t"
                     "b 2f\n"
                     "1: mrs r0, msp\n"
                     "2: push {r1, r2}\n\t" /* keeps the stack aligned to 8 */
                     "bl dispatch\n\t"
                     "pop {r1, r2}\n\t"
                     "bx r1");
}

__attribute__((used)) static void run(void) {
    for (volatile uint32_t *word = &bss; word < &bss_end; word++) {
        *word = 0;
    }
    tell("the probe, core %", CPUID >> 4 & 0xfff);
    check_calls();
    check_priorities();
    check_masks();
    check_stacks();
    check_systick();
    check_waiting();
    check_faults();
    check_mpu();
    check_fpu();
    check_bits();
    check_vectors();
    check_reset();
    quit();
}

__attribute__((naked)) void start(void) {
    __asm__ volatile("bl run");
}

#define ENTRIES_4 enter, enter, enter, enter
#define ENTRIES_16 ENTRIES_4, ENTRIES_4, ENTRIES_4, ENTRIES_4

__attribute__((section(".vectors"), used)) static const struct {
    uint32_t *stack;
    void (*start)(void);
    void (*other[62])(void);
} vectors = {&stack_end,
             start,
             {ENTRIES_16, ENTRIES_16, ENTRIES_16, ENTRIES_4, ENTRIES_4, ENTRIES_4, enter, enter}};
