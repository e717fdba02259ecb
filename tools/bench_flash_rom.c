/* What `make bench` has an RP2040 execute, as its second stage: it programs COUNT pages from BASE
 * on, an offset in the flash, by the boot ROM's functions. */
#include <stdint.h>

enum { PAGE_SIZE = 256 };

static void *find(uint32_t code) {
    const volatile uint16_t *places = (const volatile uint16_t *)0x14;
    void *(*find_entry)(uint32_t, uint32_t) = (void *)(uintptr_t)places[2];
    return find_entry(places[0], code);
}

__attribute__((section(".vectors"), used)) void start(void) {
    uint8_t *const page = (uint8_t *)DATA;
    ((void (*)(uint8_t *, uint8_t, uint32_t))find('M' | 'S' << 8))(page, 0, PAGE_SIZE);
    ((void (*)(void))find('I' | 'F' << 8))();
    ((void (*)(void))find('E' | 'X' << 8))();
    void (*program)(uint32_t, const uint8_t *, uint32_t) = find('R' | 'P' << 8);
    for (uint32_t i = 0; i < COUNT; i++) {
        program(BASE + i * PAGE_SIZE, page, PAGE_SIZE);
    }
    for (;;) {
        __asm__ volatile("wfi");
    }
}
