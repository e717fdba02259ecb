#include "board/nor.h"

#include "agent/agent.h"
#include "board/system.h"
#include "board/uart.h"
#include "board_map.h"
#include "lib/bug.h"

static int program(void *ctx, uint32_t offset, const void *data, uint32_t length) {
    (void)ctx;
    return AGENT->program(offset, data, length);
}

static int erase(void *ctx, uint32_t offset) {
    (void)ctx;
    if (BUG(ERASE_FROM_NOR)) {
        volatile uint32_t *const block = (volatile uint32_t *)(BOARD_NOR_WINDOW + offset);
        const uint32_t commands[] = {0x600060, 0xd000d0, 0x200020, 0xd000d0};
        for (size_t i = 0; i < sizeof commands / sizeof commands[0]; i++) {
            *block = commands[i];
        }
        while ((*block & 0x800080) != 0x800080) {
        }
        *block = 0xff00ff;
        return AGENT_OK;
    }
    return AGENT->erase(offset);
}

int nor_attach(struct flash *flash) {
    const int status = AGENT->init(uart_ring(UART_WIRE), uart_ring(UART_RADIO));
    if (status != AGENT_OK) {
        return status;
    }
    *flash = (struct flash){
        .base = system_nor(0),
        .block_size = AGENT->geometry()->block_size,
        .program = program,
        .erase = erase,
    };
    return AGENT_OK;
}

int nor_init(struct flash *flash) {
    agent_load();
    return nor_attach(flash);
}
