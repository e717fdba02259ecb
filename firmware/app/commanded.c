#include "app/commanded.h"

#include <string.h>

#include "app/identity.h"
#include "app/prompt.h"
#include "app/storage.h"
#include "app/userdata.h"
#include "app/verdict.h"
#include "board/system.h"
#include "board/uart.h"
#include "board/verify.h"
#include "board_map.h"
#include "link/maps.h"

static bool accepted;

static enum result judge(const struct upgrade *upgrade) {
    const struct update_summary now = verdict_summary();
    if (now.phase != UPDATE_IDLE) {
        return RESULT_BUSY;
    }
    if (upgrade->size == 0) {
        return RESULT_BAD_ANNOUNCEMENT;
    }
    if (upgrade->size > BOARD_APPLICATION_SIZE) {
        return RESULT_TOO_LARGE;
    }
    if (strcmp(upgrade->hardware_id, identity()->terminal.hardware_id) != 0) {
        return RESULT_OTHER_HARDWARE;
    }
    if (upgrade->security_counter < now.security_counter) {
        return RESULT_TOO_OLD;
    }
    if (!verify_signature(upgrade->digest, upgrade->signature)) {
        return RESULT_SIGNATURE;
    }
    return (enum result)userdata_unchanged(upgrade->id, upgrade->backup);
}

static enum result keep(const struct upgrade *upgrade) {
    if (journal_make_room(storage_journal()) != RECORDLOG_OK) {
        return RESULT_PROGRAM_FAILED;
    }
    struct journal_state state = storage_journal()->state;
    state.phase = JOURNAL_COMMANDED;
    state.starts = 0;
    state.source = JOURNAL_RADIO;
    state.result = RESULT_SUCCESS;
    state.update_id = upgrade->id;
    /* What runs now is confirmed: nothing older may come of it, whatever the server claims. */
    state.security_counter = verdict_summary().security_counter;
    state.target_version.major = upgrade->version.major;
    state.target_version.minor = upgrade->version.minor;
    state.target_version.revision = upgrade->version.revision;
    state.target_version.build = upgrade->version.build;
    state.target_size = upgrade->size;
    memcpy(state.target_digest, upgrade->digest, sizeof state.target_digest);
    return journal_write(storage_journal(), &state) == RECORDLOG_OK ? RESULT_SUCCESS
                                                                    : RESULT_PROGRAM_FAILED;
}

void commanded_answer_upgrade(const struct coap_message *request, struct coap_builder *reply) {
    struct upgrade upgrade;
    if (!maps_get_upgrade(request, &upgrade)) {
        coap_build_code(reply, COAP_BAD_REQUEST);
        return;
    }
    enum result result = RESULT_SUCCESS;
    if (!accepted) { /* else it has come twice, and the first is about to be carried out */
        result = judge(&upgrade);
        if (result == RESULT_SUCCESS) {
            result = keep(&upgrade);
        }
        accepted = result == RESULT_SUCCESS;
        if (accepted) {
            char version[IMAGE_VERSION_TEXT_SIZE];
            image_version_text(&upgrade.version, version);
            identity_shorten_version(version);
            console_say("update: commanded to %s", version);
        } else {
            console_say("update: refused, %s", result_text(result));
        }
    }
    maps_answer_decision(reply, result, 0, 0, result_text(result));
}

void commanded_poll(void) {
    if (accepted) {
        console_stop();
        uart_flush(UART_RADIO);
        system_restart();
    }
}
