/* nRF52840: NVMC and UART0. Source: Product Specification 1.7, chapters 4.3 and 6.33. */
#include "chip.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define NVMC_READY REGISTER(0x4001E400u)
#define NVMC_CONFIG REGISTER(0x4001E504u)
#define NVMC_ERASEPAGE REGISTER(0x4001E508u)
#define UART_STARTRX REGISTER(0x40002000u)
#define UART_STARTTX REGISTER(0x40002008u)
#define UART_RXDRDY REGISTER(0x40002108u)
#define UART_TXDRDY REGISTER(0x4000211Cu)
#define UART_INTENSET REGISTER(0x40002304u)
#define UART_ENABLE REGISTER(0x40002500u)
#define UART_PSEL_TXD REGISTER(0x4000250Cu)
#define UART_PSEL_RXD REGISTER(0x40002514u)
#define UART_RXD REGISTER(0x40002518u)
#define UART_TXD REGISTER(0x4000251Cu)
#define UART_BAUDRATE REGISTER(0x40002524u)
#define NVIC_ISER0 REGISTER(0xE000E100u)
#define NVIC_ICPR0 REGISTER(0xE000E280u)

enum { CONFIG_READ = 0, CONFIG_WRITE = 1, CONFIG_ERASE = 2 };
enum { UART_ENABLED = 4, UART_INTERRUPT = 1 << 2, BAUD_115200 = 0x01D7E000 };
enum { PIN_TXD = 6, PIN_RXD = 8 };

static void configure(uint32_t what) {
    NVMC_CONFIG = what;
    while (NVMC_READY == 0) {
    }
}

void flash_erase(uint32_t page) {
    configure(CONFIG_ERASE);
    NVMC_ERASEPAGE = page;
    while (NVMC_READY == 0) {
    }
    configure(CONFIG_READ);
}

void flash_program(uint32_t to, const void *from, uint32_t size) {
    const uint32_t *const words = from;
    configure(CONFIG_WRITE);
    for (uint32_t i = 0; i < size / 4; i++) {
        REGISTER(to + 4 * i) = words[i];
        while (NVMC_READY == 0) {
        }
    }
    configure(CONFIG_READ);
}

void uart_start(void) {
    UART_PSEL_TXD = PIN_TXD;
    UART_PSEL_RXD = PIN_RXD;
    UART_BAUDRATE = BAUD_115200;
    UART_ENABLE = UART_ENABLED;
    UART_STARTTX = 1;
    UART_STARTRX = 1;
    UART_INTENSET = 1u << 2; /* RXDRDY: wakes the core, which takes no interrupt (PRIMASK) */
    NVIC_ISER0 = UART_INTERRUPT;
    __asm volatile("cpsid i");
}

void uart_put(uint8_t byte) {
    UART_TXDRDY = 0;
    UART_TXD = byte;
    while (UART_TXDRDY == 0) {
    }
}

uint8_t uart_get(void) {
    while (UART_RXDRDY == 0) {
        __asm volatile("wfi");
    }
    UART_RXDRDY = 0;
    const uint8_t byte = (uint8_t)UART_RXD;
    NVIC_ICPR0 = UART_INTERRUPT;
    return byte;
}
