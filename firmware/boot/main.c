/* The bootloader: decides from the journal and from what is in the NOR whether the application may
 * run (docs/firmware.md, "Starting"). */
#include <string.h>

#include "agent/agent.h"
#include "board/handover.h"
#include "board/nor.h"
#include "board/say.h"
#include "board/system.h"
#include "board/terminal_id.h"
#include "board/timer.h"
#include "board/uart.h"
#include "board/verify.h"
#include "board_map.h"
#include "boot/resident_load.h"
#include "lib/image.h"
#include "lib/journal.h"
#include "lib/result.h"
#include "lib/starts.h"

#define BOOT_VERSION "1.0.0"
#define RETRY_US 1000000u

/* What is installed, as far as it was checked. */
struct installed {
    int result; /* enum result */
    bool blank;
    const char *problem; /* for a person */
    struct image image;  /* to be believed when result is RESULT_SUCCESS */
};

static struct terminal_id id;
static struct flash flash;
static struct journal journal;
static struct installed installed;

static void drain(void *ctx) {
    (void)ctx;
    uart_poll();
}

_Noreturn void system_exception(const char *kind, uint32_t pc) {
    say("boot: exception %s at 0x%08x\n", kind, (unsigned)pc);
    system_restart();
}

static void check_installed(void) {
    const struct verify_rules rules = {
        .hardware_id = id.hardware_id,
        .minimum_counter = journal.state.security_counter,
        .partition_size = BOARD_APPLICATION_SIZE,
        .progress = drain,
    };
    const uint8_t *const start = system_nor(BOARD_APPLICATION_OFFSET);
    const int error = image_parse(&installed.image, start, BOARD_APPLICATION_SIZE);
    installed.blank = error == IMAGE_BLANK;
    installed.result = verify_image(start, BOARD_APPLICATION_SIZE, &rules, &installed.image);
    installed.problem = error == IMAGE_OK ? result_text(installed.result) : image_error_text(error);
}

/* No software but boot may change these, whatever it tries. */
static void lock_down(void) {
    if (AGENT->lock_down(BOARD_BOOT_OFFSET, BOARD_BOOT_SIZE) != AGENT_OK ||
        AGENT->lock_down(BOARD_IDENTITY_OFFSET, BOARD_IDENTITY_SIZE) != AGENT_OK ||
        AGENT->lock_down(BOARD_STARTS_OFFSET, BOARD_STARTS_SIZE) != AGENT_OK) {
        say("boot: the chips were not locked down\n");
    }
}

/* Whatever is started next has numbers for its messages that no start before it has used. */
static void hand_over(void) {
    const uint32_t start = starts_count(&flash, BOARD_STARTS_OFFSET, BOARD_STARTS_SIZE);
    if (start == 0) {
        say("boot: this start cannot be counted: the link will not be used\n");
    }
    *HANDOVER = (struct handover){.magic = HANDOVER_MAGIC, .start = start};
}

static _Noreturn void start_resident(bool commanded, const char *reason, const char *detail) {
    struct resident_start start = {
        .commanded = commanded,
        .installed = installed.result == RESULT_SUCCESS,
        .journal_affirmed = journal.log.affirmed,
    };
    print_text(start.reason, sizeof start.reason, "%s", reason);
    print_text(start.detail, sizeof start.detail, "%s", detail);
    const uint32_t length = resident_load(&start);
    if (commanded) {
        say("boot: resident program loaded, %u bytes\n", (unsigned)length);
    }
    hand_over();
    lock_down();
    uart_flush(UART_WIRE);
    resident_run();
}

static _Noreturn void restore(const char *reason, const char *detail) {
    start_resident(false, reason, detail);
}

/* The state must be in the journal before what it says is done. */
static void enter_phase(const struct journal_state *state) {
    const int error = journal_write(&journal, state);
    if (error) {
        restore("the journal cannot be written: ", recordlog_error_text(error));
    }
}

static _Noreturn void start_application(void) {
    hand_over();
    lock_down();
    uart_flush(UART_WIRE);
    system_start_program((const uint32_t *)(const void *)system_nor(BOARD_APPLICATION_OFFSET +
                                                                    BOARD_IMAGE_HEADER_SIZE));
}

static _Noreturn void when_idle(void) {
    if (installed.result == RESULT_SUCCESS) {
        start_application();
    }
    if (installed.blank) {
        restore("no application", "");
    }
    restore("application damaged: ", installed.problem);
}

static _Noreturn void when_failed(void) {
    restore("the new software failed its trial", "");
}

static _Noreturn void when_trial(void) {
    struct journal_state state = journal.state;
    if (installed.result == RESULT_SUCCESS && state.starts < JOURNAL_MAX_STARTS) {
        state.starts++;
        enter_phase(&state);
        say("boot: trial start %u of %u\n", (unsigned)state.starts, JOURNAL_MAX_STARTS);
        start_application();
    }
    state.phase = JOURNAL_FAILED;
    state.result = RESULT_TRIAL_FAILED;
    enter_phase(&state);
    when_failed();
}

/* Power was lost in an erase or a program of the application, which reads as valid: its cells may
 * read otherwise another time. Programming the same bytes again makes them sure. */
static bool affirm_application(void) {
    return flash.program(flash.ctx, BOARD_APPLICATION_OFFSET, system_nor(BOARD_APPLICATION_OFFSET),
                         installed.image.total) == 0;
}

static _Noreturn void when_rewriting(void) {
    struct journal_state state = journal.state;
    if (installed.result != RESULT_SUCCESS || !affirm_application()) {
        restore("rewrite was interrupted", "");
    }
    if (memcmp(installed.image.digest, state.target_digest, sizeof state.target_digest) == 0) {
        state.phase = JOURNAL_TRIAL;
        state.starts = 0;
        enter_phase(&state);
        when_trial();
    }
    if (state.source != JOURNAL_RADIO) {
        /* What is still there was to be replaced because it failed its trial. With the link as the
         * source, the number is of the update that was to replace it, which has not failed so. */
        state.phase = JOURNAL_FAILED;
        state.result = state.source == JOURNAL_LINK ? RESULT_INTERRUPTED : RESULT_TRIAL_FAILED;
        enter_phase(&state);
        when_failed();
    }
    state.phase = JOURNAL_IDLE;
    state.result = RESULT_INTERRUPTED;
    enter_phase(&state);
    start_application();
}

static void open_nor(void) {
    const int status = nor_init(&flash);
    if (status != AGENT_OK) {
        say("boot: no flash chips (%d)\n", status);
        timer_delay(RETRY_US);
        system_restart();
    }
    const int error = journal_mount(&journal, &flash, BOARD_JOURNAL_OFFSET, BOARD_JOURNAL_SIZE);
    if (error) {
        say("boot: journal: %s\n", recordlog_error_text(error));
    }
}

_Noreturn void main(void) {
    /* Boot listens to nobody; the agent wants somewhere to put what arrives. */
    static uint8_t wire_ring[64];
    static uint8_t radio_ring[64];
    timer_init();
    uart_init(UART_WIRE, wire_ring, sizeof wire_ring);
    uart_init(UART_RADIO, radio_ring, sizeof radio_ring);
    say("boot: unbrick boot %s\n", BOOT_VERSION);
    open_nor();
    if (!terminal_id_read(&id)) {
        say("boot: no valid identity\n");
    }
    check_installed();
    /* Nothing is built on a state that may read otherwise at the next start. */
    const int error = journal_affirm(&journal);
    if (error) {
        restore("the journal cannot be written: ", recordlog_error_text(error));
    }
    switch (journal.state.phase) {
    case JOURNAL_REWRITING:
        when_rewriting();
    case JOURNAL_TRIAL:
        when_trial();
    case JOURNAL_FAILED:
        when_failed();
    case JOURNAL_COMMANDED:
        start_resident(true, "", "");
    default:
        when_idle();
    }
}
