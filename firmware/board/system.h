/* Start-up, exceptions, sleeping and starting again.
 *
 * Start-up (board/start.S) sets VBAR and the stack, copies data, clears bss, calls system_init and
 * then main, with interrupts masked for ever. Every program defines these two. */
#pragma once

#include <stddef.h>
#include <stdint.h>

_Noreturn void main(void);

/* An exception was taken at the instruction `pc`: `kind` is "undefined instruction", "supervisor
 * call", "prefetch abort", "data abort", "hypervisor call", "interrupt" or "fast interrupt". Runs
 * on a fresh stack. Say so, then system_restart(). */
_Noreturn void system_exception(const char *kind, uint32_t pc);

/* Enables the UARTs' and the timer's interrupts in the GIC, so that WFI wakes up for them. */
void system_init(void);

/* Lets UART0 send what it has, then resets the board. */
_Noreturn void system_restart(void);

/* Starts a program whose vector (initial stack pointer, entry with bit 0 set) lies at `vector`. */
_Noreturn void system_start_program(const uint32_t *vector);

/* The NOR as it is read and executed in place. */
static inline const uint8_t *system_nor(uint32_t offset) {
    uintptr_t address = offset;
    /* The NOR begins at address 0: hide that from the optimiser, for which it is a null pointer. */
    __asm__("" : "+r"(address));
    return (const uint8_t *)address;
}
