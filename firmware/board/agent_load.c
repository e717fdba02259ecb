#include <string.h>

#include "agent/agent.h"

/* The agent's flat binary, embedded by board/agent_blob.S. */
extern const uint8_t agent_blob[], agent_blob_end[];

void agent_load(void) {
    uint8_t *place = (uint8_t *)BOARD_AGENT_BASE;
    const size_t length = (size_t)(agent_blob_end - agent_blob);
    memcpy(place, agent_blob, length);
    memset(place + length, 0, BOARD_AGENT_SIZE - length); /* its bss */
    __asm__ volatile("dsb\n\tisb" ::: "memory");
}
