#include <stdint.h>

#include "agent/nor.h"
#include "agent/text.h"
#include "board/registers.h"

/* Called by agent/start.S with what was in lr, a few bytes behind the instruction at fault. */
_Noreturn void agent_fault(uint32_t link);

void agent_fault(uint32_t link) {
    nor_show_array();
    text_say("agent: exception before ");
    text_say_number(link);
    text_say("\r\n");
    text_flush();
    board_reset();
}
