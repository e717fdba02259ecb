#include "agent/agent.h"
#include "agent/nor.h"
#include "agent/rewrite.h"

/* The linker script puts it at BOARD_AGENT_BASE. */
__attribute__((section(".api"), used)) static const struct agent_api api = {
    .magic = AGENT_MAGIC,
    .version = AGENT_VERSION,
    .init = nor_open,
    .geometry = nor_geometry,
    .erase = nor_erase,
    .program = nor_program,
    .lock_down = nor_lock_down,
    .on_wait = nor_on_wait,
    .rewrite = rewrite,
};
