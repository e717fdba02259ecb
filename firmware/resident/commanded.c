#include "resident/commanded.h"

#include <string.h>

#include "agent/agent.h"
#include "board/say.h"
#include "board/system.h"
#include "board/timer.h"
#include "board/uart.h"
#include "board/verify.h"
#include "board_map.h"
#include "lib/cbor.h"
#include "lib/commands.h"
#include "resident/by_link.h"
#include "resident/restoration.h"

#define SECOND_US 1000000u
/* Without a word from the server for so long, the update is not waited for any more. */
#define SILENCE_US (60u * SECOND_US)
/* How long the end of the update is put off for the answer to its last result. */
#define LAST_WORD_US (5u * SECOND_US)
/* A result that the server could not take is sent again after this. */
#define AGAIN_US (2u * SECOND_US)

static struct {
    struct terminal *terminal;
    struct command_rules rules;
    struct commands commands;
    struct {
        bool wanted; /* until it is answered */
        bool sent;   /* and waits for the answer */
        uint64_t at; /* when it is sent, or sent again */
        uint32_t step;
        enum result result;
        uint8_t digest[COMMAND_DIGEST];
    } report;
    uint32_t written; /* bytes, since that was last said */
    uint64_t started;
    uint64_t leave_at; /* when boot is started again at the latest; TIMER_NEVER: not at all */
    uint64_t alone_at; /* when the server was last given up */
    bool wire_open;
} update;

static void tick(void *ctx) {
    (void)ctx;
    by_link_tick();
}

static void tick_while_busy(void) {
    by_link_tick();
}

static void sha256(const uint8_t *data, uint32_t length, uint8_t digest[COMMAND_DIGEST]) {
    verify_sha256(data, length, digest, NULL, NULL);
}

/* ---- Requests of the server. They may come while the NOR is busy: nothing here needs it ---- */

static void answer_result(struct coap_builder *reply, enum result result) {
    uint8_t payload[8];
    struct cbor_encoder map;
    cbor_encoder_init(&map, payload, sizeof payload);
    cbor_put_map(&map, 1);
    cbor_pair_uint(&map, 1, result);
    coap_build_code(reply, COAP_CHANGED);
    coap_build_cbor(reply, payload, cbor_encoder_finish(&map));
}

static void take(enum command_kind kind, const struct coap_message *request,
                 struct coap_builder *reply) {
    enum result result;
    if (!commands_take(&update.commands, kind, request->payload, request->payload_length,
                       &result)) {
        coap_build_code(reply, COAP_BAD_REQUEST);
        return;
    }
    if (update.commands.asked_again) {
        update.commands.asked_again = false;
        update.report.wanted = true;
    }
    answer_result(reply, result);
}

static void answer_erase(const struct coap_message *request, struct coap_builder *reply) {
    take(COMMAND_ERASE, request, reply);
}

static void answer_write(const struct coap_message *request, struct coap_builder *reply) {
    take(COMMAND_WRITE, request, reply);
}

static void answer_check(const struct coap_message *request, struct coap_builder *reply) {
    take(COMMAND_CHECK, request, reply);
}

static void answer_finish(const struct coap_message *request, struct coap_builder *reply) {
    take(COMMAND_FINISH, request, reply);
}

static void answer_leave(const struct coap_message *request, struct coap_builder *reply) {
    take(COMMAND_LEAVE, request, reply);
}

/* The application's answer was lost: it was carried out, or this program would not run. */
static void answer_upgrade(const struct coap_message *request, struct coap_builder *reply) {
    struct upgrade upgrade;
    if (!maps_get_upgrade(request, &upgrade)) {
        coap_build_code(reply, COAP_BAD_REQUEST);
        return;
    }
    const struct journal_state *const state = &update.terminal->journal.state;
    const bool same = upgrade.id == state->update_id &&
                      memcmp(upgrade.digest, state->target_digest, sizeof upgrade.digest) == 0;
    const enum result result = same ? RESULT_SUCCESS : RESULT_BUSY;
    maps_answer_decision(reply, result, 0, 0, result_text(result));
}

static void answer_status(struct coap_builder *reply) {
    maps_answer_status(reply, UPDATE_COMMANDED, update.rules.update_id,
                       update.commands.command.step, update.commands.state == COMMANDS_TAKEN);
}

/* ---- Results ---- */

static void report(enum result result) {
    update.report.wanted = true;
    update.report.sent = false;
    update.report.at = timer_now();
    update.report.step = update.commands.command.step;
    update.report.result = result;
}

static void send_report(uint64_t now) {
    uint8_t payload[192];
    struct cbor_encoder map;
    struct coap_builder builder;
    if (!update.report.wanted || update.report.sent || now < update.report.at ||
        !coap_request_begin(radio_endpoint(), &builder, COAP_POST)) {
        return;
    }
    cbor_encoder_init(&map, payload, sizeof payload);
    cbor_put_map(&map, 7);
    cbor_pair_text(&map, 1, update.terminal->id.serial);
    cbor_pair_uint(&map, 2, update.rules.update_id);
    cbor_pair_uint(&map, 3, update.rules.nonce);
    cbor_pair_uint(&map, 4, update.report.step);
    cbor_pair_uint(&map, 5, update.report.result);
    cbor_pair_bytes(&map, 6, update.report.digest, sizeof update.report.digest);
    cbor_pair_text(&map, 7, result_text(update.report.result));
    coap_build_path(&builder, "result");
    coap_build_cbor(&builder, payload, cbor_encoder_finish(&map));
    update.report.sent = coap_request_send(radio_endpoint(), &builder, BY_LINK_TAG_RESULT, now);
}

static void take_response(enum coap_outcome outcome, const struct coap_message *response) {
    const int answer = outcome == COAP_RESPONSE ? COAP_CODE_CLASS(response->code) : 0;
    update.report.sent = false;
    update.report.at = timer_now() + AGAIN_US;
    if (answer == 2 || answer == 4) {
        update.report.wanted = false;
    }
}

/* ---- Carrying out ---- */

static void say_written(void) {
    if (update.written > 0) {
        say("resident: wrote %u bytes\n", (unsigned)update.written);
        update.written = 0;
    }
}

/* Before the application's partition is changed: the journal says so, and what was there at the
 * start is forgotten. Returns whether it may be changed. */
static bool announce_change(uint32_t offset) {
    struct journal_state state = update.terminal->journal.state;
    if (offset < BOARD_APPLICATION_OFFSET ||
        offset >= BOARD_APPLICATION_OFFSET + BOARD_APPLICATION_SIZE) {
        return true;
    }
    memset(&update.terminal->installed, 0, sizeof update.terminal->installed);
    if (state.starts == JOURNAL_CHANGED) {
        return true;
    }
    state.starts = JOURNAL_CHANGED;
    return journal_write(&update.terminal->journal, &state) == RECORDLOG_OK;
}

static enum result erase(const struct command *command) {
    say_written();
    if (!announce_change(command->offset) || AGENT->erase(command->offset) != AGENT_OK) {
        return RESULT_ERASE_FAILED;
    }
    const uint8_t *const block = system_nor(command->offset);
    for (uint32_t i = 0; i < command->length; i++) {
        if (block[i] != 0xff) {
            return RESULT_ERASE_FAILED;
        }
    }
    say("resident: erased 0x%08x\n", (unsigned)command->offset);
    return RESULT_SUCCESS;
}

/* Also what is there already is programmed: its cells may be weak, from a torn operation. */
static enum result write(const struct command *command) {
    const uint8_t *const there = system_nor(command->offset);
    for (uint32_t i = 0; i < command->length; i++) {
        if (command->data[i] & ~there[i]) {
            return RESULT_OTHER_CONTENT; /* a program only clears bits */
        }
    }
    if (!announce_change(command->offset) ||
        AGENT->program(command->offset, command->data, command->length) != AGENT_OK) {
        return RESULT_PROGRAM_FAILED;
    }
    update.written += command->length;
    return RESULT_SUCCESS;
}

static enum result check(const struct command *command) {
    uint8_t digest[COMMAND_DIGEST];
    say_written();
    verify_sha256(system_nor(command->offset), command->length, digest, tick, NULL);
    const bool equal = memcmp(digest, command->digest, sizeof digest) == 0;
    say("resident: %s\n", equal ? "checked" : "checked, something else is there");
    return equal ? RESULT_SUCCESS : RESULT_OTHER_CONTENT;
}

/* Programs the application's own bytes over it once more: power may have been lost in an operation
 * on it, in an earlier start, and cells that read right now may be weak. One that nothing has
 * changed is left alone. */
static bool affirm_application(uint32_t length) {
    const uint8_t *const start = system_nor(BOARD_APPLICATION_OFFSET);
    return update.terminal->journal.state.starts != JOURNAL_CHANGED ||
           AGENT->program(BOARD_APPLICATION_OFFSET, start, length) == AGENT_OK;
}

static enum result verify(struct image *image) {
    const struct verify_rules rules = {
        .hardware_id = update.terminal->id.hardware_id,
        .minimum_counter = update.terminal->journal.state.security_counter,
        .partition_size = BOARD_APPLICATION_SIZE,
        .progress = tick,
    };
    return (enum result)verify_image(system_nor(BOARD_APPLICATION_OFFSET), BOARD_APPLICATION_SIZE,
                                     &rules, image);
}

static bool is_target(const struct image *image) {
    const struct journal_state *const state = &update.terminal->journal.state;
    return image->total == state->target_size &&
           memcmp(image->digest, state->target_digest, sizeof state->target_digest) == 0;
}

static bool enter_phase(enum journal_phase phase, enum result result) {
    struct journal_state state = update.terminal->journal.state;
    state.phase = (uint8_t)phase;
    state.starts = 0;
    state.result = (uint8_t)result;
    return journal_write(&update.terminal->journal, &state) == RECORDLOG_OK;
}

static void start_again(const char *what) {
    say("resident: %s\n", what);
    update.leave_at = timer_now() + LAST_WORD_US;
}

static enum result finish(void) {
    struct image image;
    say_written();
    const enum result result = verify(&image);
    if (result != RESULT_SUCCESS) {
        return result;
    }
    if (!is_target(&image)) {
        return RESULT_IMAGE_HASH;
    }
    if (!affirm_application(image.total)) {
        return RESULT_PROGRAM_FAILED;
    }
    if (!enter_phase(JOURNAL_TRIAL, RESULT_SUCCESS)) {
        return RESULT_PROGRAM_FAILED;
    }
    start_again("finished");
    return RESULT_SUCCESS;
}

/* Ends the update as far as it has come; boot goes on from what the journal says. With `stay` only
 * if there is something to start. */
static enum result leave(const char *why, bool stay) {
    struct image image;
    say_written();
    const bool valid = verify(&image) == RESULT_SUCCESS && affirm_application(image.total);
    if (!valid && stay) {
        return RESULT_REWRITE_FAILED;
    }
    /* All of the new software may be there already: then it is what is tried. */
    const bool written = !valid              ? enter_phase(JOURNAL_REWRITING, RESULT_SUCCESS)
                         : is_target(&image) ? enter_phase(JOURNAL_TRIAL, RESULT_SUCCESS)
                                             : enter_phase(JOURNAL_IDLE, RESULT_INTERRUPTED);
    if (!written) {
        return RESULT_PROGRAM_FAILED;
    }
    start_again(why);
    return RESULT_SUCCESS;
}

static enum result carry_out(const struct command *command) {
    switch (command->kind) {
    case COMMAND_ERASE:
        return erase(command);
    case COMMAND_WRITE:
        return write(command);
    case COMMAND_CHECK:
        return check(command);
    case COMMAND_FINISH:
        return finish();
    case COMMAND_LEAVE:
        return leave("left, as the server said", false);
    }
    return RESULT_BAD_ANNOUNCEMENT;
}

static void carry_out_command(void) {
    const struct command *const command = &update.commands.command;
    coap_request_cancel(radio_endpoint(), BY_LINK_TAG_RESULT); /* the server has gone on */
    update.report.wanted = false;
    const enum result result = carry_out(command);
    /* As it reads now, whatever came of it; of nothing for finish and leave. What an erase has left
       of the user's data is nobody's business. */
    const bool is_left = command->kind == COMMAND_ERASE && result != RESULT_SUCCESS;
    verify_sha256(system_nor(command->offset), is_left ? 0 : command->length, update.report.digest,
                  tick, NULL);
    commands_done(&update.commands);
    report(result);
}

/* ---- Without the server ---- */

static void be_alone(void) {
    if (leave("left, the server does not answer", true) != RESULT_REWRITE_FAILED) {
        return;
    }
    if (!update.wire_open) {
        update.wire_open = true;
        restoration_open_wire(&(struct restoration){
            .reason = "the commanded update was broken off",
            .detail = "",
            .terminal = update.terminal,
        });
    }
}

static void poll(uint64_t now) {
    /* A person who is sending something may end that before the NOR is touched. */
    if (update.commands.state == COMMANDS_TAKEN && update.leave_at == TIMER_NEVER &&
        !restoration_is_receiving()) {
        carry_out_command();
    }
    send_report(now);
    if (now >= update.leave_at || (update.leave_at != TIMER_NEVER && !update.report.wanted)) {
        uart_flush(UART_RADIO);
        system_restart();
    }
    const uint64_t heard = radio_heard() > update.started ? radio_heard() : update.started;
    if (update.leave_at == TIMER_NEVER && now > heard + SILENCE_US && update.alone_at <= heard) {
        update.alone_at = now;
        be_alone();
    }
}

_Noreturn void commanded(struct terminal *terminal) {
    static const struct radio_resource resources[] = {
        {"upgrade", COAP_POST, answer_upgrade}, {"erase", COAP_POST, answer_erase},
        {"write", COAP_POST, answer_write},     {"check", COAP_POST, answer_check},
        {"finish", COAP_POST, answer_finish},   {"leave", COAP_POST, answer_leave},
    };
    _Static_assert(sizeof resources / sizeof resources[0] <= BY_LINK_COMMANDS, "no room for them");
    static struct by_link_commands link = {
        .resources = resources,
        .resource_count = sizeof resources / sizeof resources[0],
        .status = answer_status,
        .response = take_response,
    };
    const struct journal_state *const state = &terminal->journal.state;
    const uint32_t count = terminal->journal.log.next ^ terminal->journal.log.generation << 16;
    const struct image_version target = {
        .major = state->target_version.major,
        .minor = state->target_version.minor,
        .revision = state->target_version.revision,
        .build = state->target_version.build,
    };
    char version[IMAGE_VERSION_TEXT_SIZE];
    link.nonce = radio_seed(terminal->id.serial, count);
    update.terminal = terminal;
    update.rules = (struct command_rules){
        .update_id = state->update_id,
        .nonce = link.nonce,
        .block_size = AGENT->geometry()->block_size,
        .image = {BOARD_APPLICATION_OFFSET, BOARD_APPLICATION_SIZE},
        .userdata = {BOARD_USERDATA_OFFSET, BOARD_USERDATA_SIZE},
        .sha256 = sha256,
    };
    commands_init(&update.commands, &update.rules);
    update.started = timer_now();
    update.leave_at = TIMER_NEVER;
    image_version_text(&target, version);
    say("resident: commanded update %u to %s\n", (unsigned)state->update_id, version);
    by_link_start(terminal, &link);
    AGENT->on_wait(tick_while_busy);
    for (;;) {
        const uint64_t due = restoration_serve(terminal);
        poll(timer_now());
        timer_sleep_until(due);
    }
}
