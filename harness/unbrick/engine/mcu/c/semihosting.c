/* What BKPT 0xAB asks for. Source: Arm's Semihosting for AArch32 and AArch64. */
#include "core.h"

enum {
    SYS_OPEN = 1,
    SYS_WRITEC = 3,
    SYS_WRITE0 = 4,
    SYS_WRITE = 5,
    SYS_EXIT = 0x18,
    SYS_EXIT_EXTENDED = 0x20,
    CONSOLE = 1,
    LONGEST = 4096 /* bytes at once; a string without an end is hostile */
};

static void write_bytes(struct mcu *m, uint32_t address, uint32_t length, bool is_string) {
    for (uint32_t i = 0; i < length && i < LONGEST; i++) {
        uint8_t byte;
        if (!dma_read(m, address + i, &byte, 1) || (is_string && !byte)) {
            return;
        }
        line_send(m, &m->semihosting, byte, m->now);
    }
}

bool semihost(struct mcu *m) {
    uint32_t operation = read_register(m, REG_R0), argument = read_register(m, REG_R0 + 1);
    uint32_t block[3] = {0};
    uint32_t result = 0;
    uint16_t instruction = 0;
    if (!m->setup.semihosting || !halfword_at(m, m->pc, &instruction) || instruction != 0xbeab) {
        return false;
    }
    switch (operation) {
    case SYS_OPEN:
        result = CONSOLE;
        break;
    case SYS_WRITEC:
        write_bytes(m, argument, 1, false);
        break;
    case SYS_WRITE0:
        write_bytes(m, argument, LONGEST, true);
        break;
    case SYS_WRITE:
        if (dma_read(m, argument, block, sizeof block)) {
            write_bytes(m, block[1], block[2], false);
        }
        break;
    case SYS_EXIT:
    case SYS_EXIT_EXTENDED:
        stop(m, STOP_EXIT);
        break;
    default:
        result = UINT32_MAX;
        break;
    }
    write_register(m, REG_R0, result);
    m->pc += 2;
    return true;
}
