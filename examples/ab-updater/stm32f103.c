/* STM32F103: flash and USART2. Source: RM0008 rev. 21 and PM0075 rev. 2. */
#include "chip.h"

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define RCC_APB2ENR REGISTER(0x40021018u)
#define RCC_APB1ENR REGISTER(0x4002101Cu)
#define GPIOA_CRL REGISTER(0x40010800u)
#define USART_SR REGISTER(0x40004400u)
#define USART_DR REGISTER(0x40004404u)
#define USART_BRR REGISTER(0x40004408u)
#define USART_CR1 REGISTER(0x4000440Cu)
#define FLASH_KEYR REGISTER(0x40022004u)
#define FLASH_SR REGISTER(0x4002200Cu)
#define FLASH_CR REGISTER(0x40022010u)
#define FLASH_AR REGISTER(0x40022014u)
#define NVIC_ISER1 REGISTER(0xE000E104u)
#define NVIC_ICPR1 REGISTER(0xE000E284u)

enum { FLASH_KEY1 = 0x45670123 };
#define FLASH_KEY2 0xCDEF89ABu
enum { SR_BSY = 1 << 0, CR_PG = 1 << 0, CR_PER = 1 << 1, CR_STRT = 1 << 6, CR_LOCK = 1 << 7 };
enum {
    USART_RXNE = 1 << 5,
    USART_TC = 1 << 6,
    USART_TXE = 1 << 7,
    USART_INTERRUPT = 1 << (38 - 32)
};
enum { CR1_RE = 1 << 2, CR1_TE = 1 << 3, CR1_RXNEIE = 1 << 5, CR1_UE = 1 << 13 };
enum { HSI_HZ = 8000000, BAUD = 115200 };

static void wait_ready(void) {
    while ((FLASH_SR & SR_BSY) != 0) {
    }
}

static void unlock(void) {
    FLASH_KEYR = FLASH_KEY1;
    FLASH_KEYR = FLASH_KEY2;
}

void flash_erase(uint32_t page) {
    unlock();
    FLASH_CR = CR_PER;
    FLASH_AR = page;
    FLASH_CR = CR_PER | CR_STRT;
    wait_ready();
    FLASH_CR = CR_LOCK;
}

void flash_program(uint32_t to, const void *from, uint32_t size) {
    const uint16_t *const halves = from;
    unlock();
    FLASH_CR = CR_PG;
    for (uint32_t i = 0; i < size / 2; i++) {
        *(volatile uint16_t *)(uintptr_t)(to + 2 * i) = halves[i];
        wait_ready();
    }
    FLASH_CR = CR_LOCK;
}

void uart_start(void) {
    RCC_APB2ENR |= 1u << 2;  /* port A */
    RCC_APB1ENR |= 1u << 17; /* USART2 */
    GPIOA_CRL = 0x44444B44u; /* PA2 is its output, PA3 its input */
    USART_BRR = (HSI_HZ + BAUD / 2) / BAUD;
    USART_CR1 = CR1_UE | CR1_TE | CR1_RE | CR1_RXNEIE;
    NVIC_ISER1 = USART_INTERRUPT; /* wakes the core, which takes no interrupt (PRIMASK) */
    __asm volatile("cpsid i");
}

void uart_put(uint8_t byte) {
    while ((USART_SR & USART_TXE) == 0) { /* the read is a part of clearing TC */
    }
    USART_DR = byte;
    while ((USART_SR & USART_TC) == 0) {
    }
}

uint8_t uart_get(void) {
    while ((USART_SR & USART_RXNE) == 0) {
        __asm volatile("wfi");
    }
    const uint8_t byte = (uint8_t)USART_DR;
    NVIC_ICPR1 = USART_INTERRUPT;
    return byte;
}
