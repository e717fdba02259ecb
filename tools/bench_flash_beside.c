/* What `make bench` has an STM32F4 execute: it programs COUNT units from BASE on in a chip beside
 * it, each when the one before has ended. Which chip, PROGRAM says: a function of these. */
#include <stdint.h>

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define WORD(address) (*(volatile uint16_t *)(address))

enum { SPI = 0x40013000, PINS = 0x40020000, I2C = 0x40005400 };
enum { SELECT = 1 << 4, DESELECT = 1 << 4, PE = 1, START = 1 << 8, STOP = 1 << 9 };

/* A word, with the command set of AMD. */
static void amd(uint32_t at) {
    WORD(FIRST + 0xaaa) = 0xaa;
    WORD(FIRST + 0x554) = 0x55;
    WORD(FIRST + 0xaaa) = 0xa0;
    WORD(at) = 0;
    while (WORD(at) & 0x80) { /* DQ7 is the complement until then */
    }
}

/* A word, with that of Intel. */
static void intel(uint32_t at) {
    WORD(at) = 0x40;
    WORD(at) = 0;
    while (!(WORD(at) & 0x80)) {
    }
}

static uint32_t exchange(uint32_t byte) {
    REGISTER(SPI + 12) = byte;
    while (!(REGISTER(SPI + 8) & 1)) {
    }
    return REGISTER(SPI + 12);
}

static void select(uint32_t command) {
    REGISTER(PINS + 24) = SELECT << 16;
    exchange(command);
}

static void deselect(void) {
    REGISTER(PINS + 24) = DESELECT;
}

/* A page of a NOR flash on SPI. */
static void spi(uint32_t at) {
    select(0x06);
    deselect();
    select(0x02);
    for (int shift = 16; shift >= 0; shift -= 8) {
        exchange(at >> shift & 0xff);
    }
    for (unsigned i = 0; i < UNIT; i++) {
        exchange(0);
    }
    deselect();
    select(0x05);
    while (exchange(0) & 1) {
    }
    deselect();
}

static void send(uint32_t byte) {
    REGISTER(I2C + 16) = byte;
    while (!(REGISTER(I2C + 20) & 1 << 7)) {
    }
}

/* Whether the EEPROM answers, to begin a write. */
static int address(void) {
    REGISTER(I2C) = PE | START;
    while (!(REGISTER(I2C + 20) & 1)) {
    }
    REGISTER(I2C + 16) = 0xa0;
    while (!(REGISTER(I2C + 20) & (1 << 1 | 1 << 10))) {
    }
    int answers = REGISTER(I2C + 20) & 1 << 1;
    (void)REGISTER(I2C + 24);
    REGISTER(I2C + 20) = 0;
    return answers;
}

static void stop(void) {
    REGISTER(I2C) = PE | STOP;
}

/* A page of an EEPROM. */
static void eeprom(uint32_t at) {
    while (!address()) {
        stop();
    }
    send(at >> 8);
    send(at & 0xff);
    for (unsigned i = 0; i < UNIT; i++) {
        send(0);
    }
    while (!(REGISTER(I2C + 20) & 1 << 2)) {
    }
    stop();
}

static void start(void) {
    REGISTER(PINS + 24) = DESELECT;
    REGISTER(PINS) = 0xa8000100;
    REGISTER(SPI) = 0x354;
    REGISTER(I2C + 4) = 16;
    REGISTER(I2C + 28) = 80;
    REGISTER(I2C) = PE;
    for (uint32_t i = 0; i < COUNT; i++) {
        PROGRAM(FIRST + i * UNIT);
    }
    for (;;) {
        __asm__ volatile("cpsid i\nwfi");
    }
}

__attribute__((section(".vectors"), used)) static void (*const VECTORS[])(void) = {
    (void (*)(void))STACK, start};
