/* What the boot program and the application know of the chip. */
#pragma once

#include <stdint.h>

#if defined(NRF52840)
#define FLASH_PAGE_SIZE 0x1000u /* bytes */
#define SLOT_A 0x00002000u
#define SLOT_B 0x00005000u
#define SLOT_SIZE 0x3000u /* bytes; the last page is the slot's marks */
#elif defined(NRF51822)
#define FLASH_PAGE_SIZE 0x400u /* bytes */
#define SLOT_A 0x00002000u
#define SLOT_B 0x00004000u
#define SLOT_SIZE 0x2000u /* bytes; the last page is the slot's marks */
#elif defined(STM32F103)
#define FLASH_PAGE_SIZE 0x400u /* bytes */
#define SLOT_A 0x08002000u
#define SLOT_B 0x08004000u
#define SLOT_SIZE 0x2000u /* bytes; the last page is the slot's marks */
#elif defined(RP2040)
#define FLASH_PAGE_SIZE 0x1000u /* bytes */
#define SLOT_A 0x10002000u
#define SLOT_B 0x10005000u
#define SLOT_SIZE 0x3000u /* bytes; the last page is the slot's marks */
#else
#error "name the chip"
#endif

/* Both are done when they return. Sizes are in bytes, whole words. */
void flash_erase(uint32_t page);
void flash_program(uint32_t to, const void *from, uint32_t size);

void uart_start(void);
void uart_put(uint8_t byte);
uint8_t uart_get(void); /* sleeps until a byte comes */

void print(const char *text);
void reset_chip(void);
void start_program(uint32_t vectors);
