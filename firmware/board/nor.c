#include "board/nor.h"

#include "agent/agent.h"
#include "board/system.h"
#include "board/uart.h"
#include "board_map.h"

static int program(void *ctx, uint32_t offset, const void *data, uint32_t length) {
    (void)ctx;
    return AGENT->program(offset, data, length);
}

static int erase(void *ctx, uint32_t offset) {
    (void)ctx;
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
