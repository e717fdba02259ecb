/* The resident program: what boot loads into the SRAM when there is no application to start. */
#include <string.h>

#include "agent/agent.h"
#include "board/nor.h"
#include "board/say.h"
#include "board/system.h"
#include "board/timer.h"
#include "board/uart.h"
#include "resident/commanded.h"
#include "resident/resident.h"
#include "resident/restoration.h"
#include "resident/terminal.h"

static struct terminal terminal;

_Noreturn void system_exception(const char *kind, uint32_t pc) {
    say("resident: exception %s at 0x%08x\n", kind, (unsigned)pc);
    system_restart();
}

static void read_terminal(const struct resident_start *start) {
    struct image image;
    (void)terminal_id_read(&terminal.id);
    /* Boot has said what is wrong with the journal; nothing is written to it then. */
    (void)journal_mount(&terminal.journal, &terminal.flash, BOARD_JOURNAL_OFFSET,
                        BOARD_JOURNAL_SIZE);
    terminal.journal.log.affirmed = start->journal_affirmed;
    if (start->installed && image_parse(&image, system_nor(BOARD_APPLICATION_OFFSET),
                                        BOARD_APPLICATION_SIZE) == IMAGE_OK) {
        struct installed *const installed = &terminal.installed;
        image_text_copy(&image.name, installed->name, sizeof installed->name);
        image_version_text(&image.version, installed->version);
        image_text_copy(&image.build_time, installed->build_time, sizeof installed->build_time);
        memcpy(installed->digest, image.digest, sizeof installed->digest);
    }
}

_Noreturn void main(void) {
    static uint8_t wire_ring[4096];
    /* Holds what the window of a transfer can bring while the program is busy: 4 blocks with their
     * headers, every byte escaped at worst. */
    static uint8_t radio_ring[16384];
    struct resident_start *const start = RESIDENT_START;
    timer_init();
    uart_init(UART_WIRE, wire_ring, sizeof wire_ring);
    uart_init(UART_RADIO, radio_ring, sizeof radio_ring);
    if (start->magic != RESIDENT_MAGIC || nor_attach(&terminal.flash) != AGENT_OK) {
        say("resident: started by nobody\n");
        system_restart();
    }
    read_terminal(start);
    if (start->commanded) {
        commanded(&terminal);
    }
    restoration(&(struct restoration){
        .reason = start->reason,
        .detail = start->detail,
        .terminal = &terminal,
    });
}
