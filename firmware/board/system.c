#include "board/system.h"

#include "board/registers.h"
#include "board/uart.h"

/* The A9's interrupt controller (Arm IHI 0048). Interrupts are never taken nor acknowledged: their
 * lines go down when their source is served. */
enum gic {
    GICC_CTLR = 0x00,
    GICC_PMR = 0x04,
    GICD_CTLR = 0x00,
    GICD_ISENABLER = 0x100,
    GICD_ITARGETSR = 0x800,
};

void system_init(void) {
    static const uint8_t interrupts[] = {BOARD_IRQ_TIMER, BOARD_IRQ_UART0, BOARD_IRQ_UART1};
    for (size_t i = 0; i < sizeof interrupts; i++) {
        const uint32_t number = interrupts[i];
        /* A byte an interrupt: the CPUs it goes to. */
        *(volatile uint8_t *)(BOARD_GIC_DIST + GICD_ITARGETSR + number) = 1;
        write32(BOARD_GIC_DIST + GICD_ISENABLER + number / 32 * 4, 1u << number % 32);
    }
    write32(BOARD_GIC_CPU + GICC_PMR, 0xf0);
    write32(BOARD_GIC_CPU + GICC_CTLR, 1);
    write32(BOARD_GIC_DIST + GICD_CTLR, 1);
}

void system_restart(void) {
    uart_flush(UART_WIRE);
    board_reset();
}

void system_start_program(const uint32_t *vector) {
    const uint32_t stack = vector[0];
    const uint32_t entry = vector[1];
    __asm__ volatile("mov sp, %0\n\tbx %1" ::"r"(stack), "r"(entry) : "memory");
    __builtin_unreachable();
}
