/* RP2040: flash by the boot ROM's functions, and UART0. Source: the RP2040 data sheet,
 * sections 2.8.3, 2.14, 2.19 and 4.2. */
#include "chip.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define RESETS_CLEAR REGISTER(0x4000F000u)
#define RESETS_DONE REGISTER(0x4000C008u)
#define GPIO_CTRL(pin) REGISTER(0x40014004u + 8u * (pin))
#define UART_DR REGISTER(0x40034000u)
#define UART_FR REGISTER(0x40034018u)
#define UART_IBRD REGISTER(0x40034024u)
#define UART_FBRD REGISTER(0x40034028u)
#define UART_LCR_H REGISTER(0x4003402Cu)
#define UART_CR REGISTER(0x40034030u)
#define UART_IMSC REGISTER(0x40034038u)
#define CLK_PERI_CTRL REGISTER(0x40008048u)
#define NVIC_ISER REGISTER(0xE000E100u)
#define NVIC_ICPR REGISTER(0xE000E280u)

enum { RESET_IO_BANK0 = 1 << 5, RESET_PADS_BANK0 = 1 << 8, RESET_UART0 = 1 << 22 };
enum { FR_BUSY = 1 << 3, FR_RXFE = 1 << 4 };
enum { LCR_H_FIFO = 1 << 4, LCR_H_8_BITS = 3 << 5, CR_ON = 1 << 0 | 1 << 8 | 1 << 9 };
enum { INT_RX = 1 << 4, INT_RT = 1 << 6, UART0_IRQ = 1 << 20 };
enum { ROSC_HZ = 6500000, BAUD = 115200, GPIO_UART = 2, CLK_PERI_ON = 1 << 11 };

#define XIP_BASE 0x10000000u
enum { PROGRAM_SIZE = 256, BLOCK_SIZE = 1 << 16, ERASE_BLOCK = 0xD8 };
enum { IN_RAM_SIZE = 128 }; /* bytes of work(), at most */

struct rom {
    void (*connect)(void);
    void (*exit_xip)(void);
    void (*erase)(uint32_t offset, uint32_t size, uint32_t block_size, uint8_t block_command);
    void (*program)(uint32_t offset, const uint8_t *data, uint32_t size);
    void (*flush)(void);
    void (*enter_xip)(void);
};

/* Runs in RAM, for the flash cannot be read meanwhile. It is copied there, and calls the ROM alone.
 */
__attribute__((noinline)) static void work(const struct rom *rom, uint32_t offset,
                                           const uint8_t *data) {
    rom->connect();
    rom->exit_xip();
    if (data) {
        rom->program(offset, data, PROGRAM_SIZE);
    } else {
        rom->erase(offset, FLASH_PAGE_SIZE, BLOCK_SIZE, ERASE_BLOCK);
    }
    rom->flush();
    rom->enter_xip();
}

static void *find(char first, char second) {
    void *(*find_entry)(const uint16_t *, uint32_t) =
        (void *)(uintptr_t)*(const volatile uint16_t *)0x18;
    const uint16_t *table = (const uint16_t *)(uintptr_t)*(const volatile uint16_t *)0x14;
    return find_entry(table, (uint32_t)(first | second << 8));
}

static void work_in_ram(uint32_t address, const uint8_t *data) {
    const struct rom rom = {find('I', 'F'), find('E', 'X'), find('R', 'E'),
                            find('R', 'P'), find('F', 'C'), find('C', 'X')};
    volatile uint32_t code[IN_RAM_SIZE / 4];
    const volatile uint32_t *from = (const volatile uint32_t *)((uintptr_t)work & ~(uintptr_t)3);
    for (uint32_t i = 0; i < IN_RAM_SIZE / 4; i++) {
        code[i] = from[i];
    }
    void (*copied)(const struct rom *, uint32_t, const uint8_t *) =
        (void *)((uintptr_t)code + ((uintptr_t)work & 3));
    copied(&rom, address - XIP_BASE, data);
}

void flash_erase(uint32_t page) {
    work_in_ram(page, 0);
}

/* Bytes that are not asked for are programmed as 0xff, which changes none. */
void flash_program(uint32_t to, const void *from, uint32_t size) {
    const uint8_t *bytes = from;
    while (size) {
        _Alignas(4) volatile uint8_t page[PROGRAM_SIZE];
        const uint32_t start = to & ~(PROGRAM_SIZE - 1u);
        for (uint32_t i = 0; i < PROGRAM_SIZE; i++) {
            const uint32_t at = start + i - to;
            page[i] = at < size ? bytes[at] : 0xFF;
        }
        work_in_ram(start, (const uint8_t *)page);
        const uint32_t done = start + PROGRAM_SIZE - to;
        const uint32_t programmed = done < size ? done : size;
        to += programmed;
        bytes += programmed;
        size -= programmed;
    }
}

void uart_start(void) {
    const uint32_t blocks = RESET_IO_BANK0 | RESET_PADS_BANK0 | RESET_UART0;
    RESETS_CLEAR = blocks;
    while ((RESETS_DONE & blocks) != blocks) {
    }
    CLK_PERI_CTRL = CLK_PERI_ON;
    GPIO_CTRL(0) = GPIO_UART; /* its output */
    GPIO_CTRL(1) = GPIO_UART; /* its input */
    UART_IBRD = ROSC_HZ / (16 * BAUD);
    UART_FBRD = ROSC_HZ * 4 / BAUD % 64;
    UART_LCR_H = LCR_H_8_BITS | LCR_H_FIFO;
    UART_CR = CR_ON;
    UART_IMSC = INT_RX | INT_RT;
    NVIC_ISER = UART0_IRQ; /* wakes the core, which takes no interrupt (PRIMASK) */
    __asm volatile("cpsid i");
}

void uart_put(uint8_t byte) {
    UART_DR = byte;
    while (UART_FR & FR_BUSY) {
    }
}

uint8_t uart_get(void) {
    while (UART_FR & FR_RXFE) {
        __asm volatile("wfi");
    }
    const uint8_t byte = (uint8_t)UART_DR;
    NVIC_ICPR = UART0_IRQ;
    return byte;
}
