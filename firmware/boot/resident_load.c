#include "boot/resident_load.h"

#include <string.h>

#include "board/system.h"

/* The resident program's flat binary, embedded by boot/resident_blob.S. */
extern const uint8_t resident_blob[], resident_blob_end[];

uint32_t resident_load(const struct resident_start *start) {
    const uint32_t length = (uint32_t)(resident_blob_end - resident_blob);
    memcpy((uint8_t *)BOARD_RESIDENT_BASE, resident_blob, length);
    *RESIDENT_START = *start;
    RESIDENT_START->magic = RESIDENT_MAGIC;
    __asm__ volatile("dsb\n\tisb" ::: "memory");
    return length;
}

void resident_run(void) {
    system_start_program((const uint32_t *)BOARD_RESIDENT_BASE);
}
