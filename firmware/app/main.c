/* The terminal's application: start, and the loop that everything else is called from. */
#include "app/call.h"
#include "app/commanded.h"
#include "app/identity.h"
#include "app/panic.h"
#include "app/pool.h"
#include "app/prompt.h"
#include "app/routes.h"
#include "app/shell.h"
#include "app/storage.h"
#include "app/tasks.h"
#include "app/update.h"
#include "board/say.h"
#include "board/timer.h"
#include "board/uart.h"
#include "board_map.h"
#include "link/radio.h"

#define STEP_US 10000u

/* Powers of two. The radio's holds all that the window of a transfer can bring while the rest of
   the software is busy: 4 blocks with their headers, every byte escaped at worst. */
static uint8_t wire_received[1024];
static uint8_t radio_received[16384];

static void check_trial(void) {
    const struct task *failed = tasks_self_check();
    if (failed && storage_journal()->state.phase == JOURNAL_TRIAL) {
        panic("self-check failed, %s %s", failed->name,
              failed->state == TASK_RUNNING ? "finds its memory changed" : "has no memory");
    }
}

_Noreturn void main(void) {
    timer_init();
    uart_init(UART_WIRE, wire_received, sizeof wire_received);
    uart_init(UART_RADIO, radio_received, sizeof radio_received);
    const char *problem = identity_read();
    say("terminal: %s %s, built %s\n", identity()->name, identity()->version,
        identity()->build_time);
    if (problem) {
        say("terminal: %s\n", problem);
    }
    radio_protect(identity()->terminal.serial);
    storage_start();
    pool_init(BOARD_POOL_BASE, BOARD_POOL_SIZE);
    tasks_start();
    check_trial();
    routes_start();
    update_start();
    console_start();

    uint64_t next_step = 0;
    for (;;) {
        radio_poll(timer_now());
        update_poll(timer_now());
        call_poll(timer_now());
        commanded_poll();
        console_poll(shell_run);
        if (timer_now() >= next_step) {
            tasks_step();
            next_step = timer_now() + STEP_US;
        }
        if (uart_available(UART_WIRE) == 0 && uart_available(UART_RADIO) == 0) {
            timer_sleep_until(next_step);
        }
    }
}
