/* A boot ROM of our own for the RP2040: how the chip starts, and the functions that firmware looks
 * up. Source: the RP2040 data sheet, sections 2.7 and 2.8. It is slower than the chip's where that
 * is written in assembly, and speaks no USB. */
#include <stddef.h>
#include <stdint.h>

#include "roms/rp2040/flash.h"
#include "roms/rp2040/registers.h"

#define STAGE_2 0x20041f00u /* the last page of the RAM; the stack is below it */
enum { STAGE_2_SIZE = 256, CHECKED_SIZE = 252 };
enum { TRIES = 32, TRY_ROUNDS = 950000 }; /* half a second; the chip tries 128 times in it */
#define WATCHDOG_BOOT 0xb007c0d3u

/* Named in rom.ld, and nowhere else. */
#define LOOKED_UP __attribute__((used))

/* What both tables are searched by; NULL: there is no such entry. */
LOOKED_UP const void *find_entry(const uint16_t *table, uint32_t code) {
    for (; *table; table += 2) {
        if (*table == code) {
            return (const void *)(uintptr_t)table[1];
        }
    }
    return NULL;
}

LOOKED_UP uint32_t count_ones(uint32_t value) {
    uint32_t count = 0;
    for (; value; value &= value - 1) {
        count++;
    }
    return count;
}

LOOKED_UP uint32_t reverse_bits(uint32_t value) {
    uint32_t reversed = 0;
    for (int bit = 0; bit < 32; bit++, value >>= 1) {
        reversed = reversed << 1 | (value & 1);
    }
    return reversed;
}

LOOKED_UP uint32_t count_leading(uint32_t value) {
    uint32_t count = 32;
    for (; value; value >>= 1) {
        count--;
    }
    return count;
}

LOOKED_UP uint32_t count_trailing(uint32_t value) {
    return value ? 31 - count_leading(value & -value) : 32;
}

LOOKED_UP uint8_t *fill(uint8_t *to, uint8_t byte, uint32_t size) {
    uint8_t *at = to;
    uint32_t word = byte * 0x01010101u;
    for (; size && (uintptr_t)at % 4; size--) {
        *at++ = byte;
    }
    for (; size >= 4; size -= 4, at += 4) {
        *(volatile uint32_t *)(void *)at = word;
    }
    for (; size; size--) {
        *(volatile uint8_t *)at++ = byte;
    }
    return to;
}

LOOKED_UP uint8_t *copy(uint8_t *to, const uint8_t *from, uint32_t size) {
    uint8_t *at = to;
    if (((uintptr_t)to | (uintptr_t)from) % 4 == 0) {
        for (; size >= 4; size -= 4, at += 4, from += 4) {
            *(volatile uint32_t *)(void *)at = *(const uint32_t *)(const void *)from;
        }
    }
    for (; size; size--) {
        *(volatile uint8_t *)at++ = *from++;
    }
    return to;
}

LOOKED_UP __attribute__((noreturn)) void stand_still(void) {
    for (;;) {
        __asm__ volatile("wfi");
    }
}

/* The second core does nothing else. */
LOOKED_UP __attribute__((noreturn)) void wait_for_vector(void) {
    for (;;) {
        __asm__ volatile("wfe");
    }
}

/* The chip would be a disk at USB now, until somebody copies firmware onto it. */
LOOKED_UP __attribute__((noreturn)) void reset_to_usb_boot(uint32_t led_pins, uint32_t disabled) {
    (void)led_pins;
    (void)disabled;
    stand_still();
}

static void boot_as_watchdog_says(void) {
    uint32_t stack = WATCHDOG_SCRATCH(6), entry = WATCHDOG_SCRATCH(7);
    if (WATCHDOG_SCRATCH(4) != WATCHDOG_BOOT || WATCHDOG_SCRATCH(5) != (entry ^ -WATCHDOG_BOOT)) {
        return;
    }
    WATCHDOG_SCRATCH(4) = 0; /* once */
    __asm__ volatile("msr msp, %0\n bx %1" : : "r"(stack), "r"(entry | 1));
}

static uint32_t find_check(const uint8_t *data, uint32_t size) {
    uint32_t check = UINT32_MAX;
    for (uint32_t i = 0; i < size; i++) {
        check ^= (uint32_t)data[i] << 24;
        for (int bit = 0; bit < 8; bit++) {
            check = check << 1 ^ (check >> 31 ? 0x04c11db7u : 0);
        }
    }
    return check;
}

static int load_stage_2(void) {
    uint8_t *stage = (uint8_t *)(uintptr_t)STAGE_2;
    flash_exit_xip();
    flash_read(0, stage, STAGE_2_SIZE);
    flash_flush_cache(); /* and the SSI has its pin again */
    return find_check(stage, CHECKED_SIZE) == *(uint32_t *)(void *)(stage + CHECKED_SIZE);
}

LOOKED_UP __attribute__((noreturn)) void start(void) {
    boot_as_watchdog_says();
    connect_internal_flash();
    for (int tries = 0; tries < TRIES; tries++) {
        if (load_stage_2()) {
            flash_enter_cmd_xip();
            /* With nothing to return to, it begins what is behind it in the flash. */
            __asm__ volatile("movs r0, #0\n mov lr, r0\n bx %0" : : "h"(STAGE_2 + 1) : "r0", "lr");
        }
        uint32_t rounds = TRY_ROUNDS;
        __asm__ volatile("1: subs %0, %0, #1\n bne 1b" : "+l"(rounds) : : "cc");
    }
    reset_to_usb_boot(0, 0);
}
