/* The keys that open the flash of an STM32, each a sequence of two words. A wrong one shuts it
 * until the reset, and is told as a fault. Source: PM0075, RM0090, RM0351. */
#include "devices.h"

#define KEY1 0x45670123u
#define KEY2 0xcdef89abu
#define OPTKEY1 0x08192a3bu
#define OPTKEY2 0x4c5d6e7fu

static void take(struct mcu *m, enum flash_lock *lock, uint32_t key, uint32_t first,
                 uint32_t second) {
    if (*lock == LOCKED && key == first) {
        *lock = FIRST_KEY;
    } else if (*lock == FIRST_KEY && key == second) {
        *lock = OPEN;
    } else if (*lock != OPEN) {
        *lock = SHUT;
        fault(m, FAULT_FLASH_LOCKED, NOWHERE, key);
    }
}

void take_flash_key(struct mcu *m, enum flash_lock *lock, uint32_t key) {
    take(m, lock, key, KEY1, KEY2);
}

void take_option_key(struct mcu *m, enum flash_lock *lock, uint32_t key) {
    take(m, lock, key, OPTKEY1, OPTKEY2);
}
