/* What `make bench` has a microcontroller execute: it opens the flash and programs COUNT units of
 * UNIT bytes from BASE on, each when the one before has ended. What differs between controllers
 * comes as macros, from bench_flash.py. */
#include <stdint.h>

typedef STORE store;

#define REGISTER(address) (*(volatile uint32_t *)(address))

static void start(void) {
    volatile store *cells = (volatile store *)BASE;
    for (uint32_t i = 0; i < sizeof((uint32_t[]){KEYS}) / 4; i++) {
        REGISTER(KEYR) = ((const uint32_t[]){KEYS})[i];
    }
    REGISTER(CR) = PG;
    for (uint32_t i = 0; i < COUNT; i++) {
        for (uint32_t part = 0; part < UNIT / sizeof(store); part++) {
            *cells++ = 0;
        }
        while ((REGISTER(SR) & BUSY) != IDLE) {
        }
    }
    for (;;) {
        __asm__ volatile("cpsid i\nwfi");
    }
}

__attribute__((section(".vectors"), used)) static void (*const VECTORS[])(void) = {
    (void (*)(void))STACK, start};
