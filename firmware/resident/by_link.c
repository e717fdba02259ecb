#include "resident/by_link.h"

#include <string.h>

#include "board/say.h"
#include "board/timer.h"
#include "board/uart.h"
#include "board/verify.h"
#include "board_map.h"
#include "lib/image.h"
#include "link/radio.h"
#include "link/transfer.h"
#include "resident/resident.h"

#define SECOND_US 1000000u
/* More often than an application does: as long as the server has not heard of this start, it may
 * think that the transfer it had announced before goes on. */
#define REGISTER_AGAIN_US (15u * SECOND_US)
#define RETRY_US (5u * SECOND_US)
#define ALIGNMENT 16u

#define TAG_REPORT (BY_LINK_TAG_RESULT + 1u)
#define TAG_FIRST_BLOCK (BY_LINK_TAG_RESULT + 2u)

static struct {
    const struct terminal *terminal;
    const struct by_link_commands *commands; /* or NULL */
    struct announcement announcement;
    struct transfer transfer;
    struct by_link_file file; /* when it has come */
    uint32_t held;            /* bytes of the pool's end */
    enum result refused;      /* to be reported, when it is not RESULT_SUCCESS */
    bool reporting;
    uint32_t room;
    bool quiet;
} link;

static void drain(void *ctx) {
    (void)ctx;
    uart_poll();
}

static void describe(struct registration *registration) {
    const struct terminal_id *id = &link.terminal->id;
    const struct installed *installed = &link.terminal->installed;
    const struct journal_state *state = &link.terminal->journal.state;
    /* The journal says what was to be done; that it was not is why we are here. */
    const bool broken_off =
        state->phase == JOURNAL_REWRITING && state->result != RESULT_TRIAL_FAILED;
    *registration = (struct registration){
        .serial = id->serial,
        .hardware_id = id->hardware_id,
        .name = installed->name,
        .version = installed->version,
        .build_time = installed->build_time,
        .digest = installed->digest,
        .state = link.commands ? TERMINAL_COMMANDED : TERMINAL_IN_RESTORATION,
        .last_id = state->update_id,
        .last_result = broken_off ? RESULT_REWRITE_FAILED : state->result,
        .security_counter = state->security_counter,
        .nonce = link.commands ? link.commands->nonce : 0,
    };
}

/* Where the file is received. */
static uint8_t *area(void) {
    return (uint8_t *)BOARD_POOL_BASE + RESIDENT_POOL_SIZE - link.held;
}

static int take(uint32_t number, const uint8_t *data, uint32_t length) {
    memcpy(area() + number * TRANSFER_BLOCK, data, length);
    return RESULT_SUCCESS;
}

static const struct transfer_sink sink = {.take = take};

static void forget_file(void) {
    transfer_end(&link.transfer);
    link.file.data = NULL;
    link.held = 0;
}

void by_link_retry(const char *why) {
    forget_file();
    if (!link.quiet) {
        say("link: failed, %s\n", why);
    }
    radio_register(timer_now() + RETRY_US);
}

void by_link_refuse(enum result result) {
    forget_file();
    if (!link.quiet) {
        say("link: refused, %s\n", result_text(result));
    }
    link.refused = result;
}

/* ---- Requests of the server ---- */

static enum result judge(const struct announcement *file) {
    if (link.held > 0) {
        /* The server may not know that its announcement arrived: then it says it again. */
        const bool same =
            file->id == link.announcement.id &&
            memcmp(file->file_digest, link.announcement.file_digest, sizeof file->file_digest) == 0;
        return same ? RESULT_SUCCESS : RESULT_BUSY;
    }
    if (file->kind != KIND_FULL_IMAGE) {
        return RESULT_UNKNOWN_KIND;
    }
    if (file->size == 0 || file->size != file->image_size) {
        return RESULT_BAD_ANNOUNCEMENT;
    }
    if (file->size > BOARD_APPLICATION_SIZE) {
        return RESULT_TOO_LARGE;
    }
    /* What comes over the wire takes the room: the server may announce it again later. */
    return file->size + ALIGNMENT > link.room ? RESULT_BUSY : RESULT_SUCCESS;
}

static void answer_announcement(const struct coap_message *request, struct coap_builder *reply) {
    struct announcement file;
    if (!maps_get_announcement(request, &file)) {
        coap_build_code(reply, COAP_BAD_REQUEST);
        return;
    }
    const enum result result = judge(&file);
    if (result == RESULT_SUCCESS && link.held == 0) {
        link.announcement = file;
        link.held = (file.size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        transfer_begin(&link.transfer, radio_endpoint(), TAG_FIRST_BLOCK, &link.announcement,
                       &sink);
        if (!link.quiet) {
            say("link: receiving %s, %u bytes\n", file.version, (unsigned)file.size);
        }
    }
    maps_answer_decision(reply, result, file.size, link.held ? link.held : link.room,
                         result_text(result));
}

static void answer_status(const struct coap_message *request, struct coap_builder *reply) {
    (void)request;
    const bool idle = link.held == 0;
    if (idle && link.commands) {
        link.commands->status(reply);
        return;
    }
    const enum update_phase phase = idle             ? UPDATE_IDLE
                                    : link.file.data ? UPDATE_RECEIVED
                                                     : UPDATE_TRANSFERRING;
    maps_answer_status(reply, phase, idle ? 0 : link.announcement.id,
                       idle ? 0 : link.transfer.received, idle ? 0 : link.announcement.size);
}

/* ---- Requests to the server ---- */

static void say_contact(enum radio_contact contact, uint8_t code) {
    if (link.quiet) {
        return;
    }
    if (contact == RADIO_REGISTERED) {
        say("link: registered as %s\n", link.commands ? "commanded" : "in restoration");
    } else if (contact == RADIO_REFUSED) {
        say("link: the server refuses to register this terminal, code %u.%02u\n",
            (unsigned)COAP_CODE_CLASS(code), (unsigned)COAP_CODE_DETAIL(code));
    } else if (contact == RADIO_USED_UP) {
        say("link: no number is left for its messages\n");
    } else {
        say("link: the server does not answer\n");
    }
}

static void report_refusal(uint64_t now) {
    struct coap_builder builder;
    if (link.refused == RESULT_SUCCESS || link.reporting ||
        !coap_request_begin(radio_endpoint(), &builder, COAP_POST)) {
        return;
    }
    struct registration me;
    describe(&me);
    coap_build_path(&builder, "report");
    maps_put_report(&builder, &me, link.announcement.id, UPDATE_FINISHED, link.refused);
    link.reporting = coap_request_send(radio_endpoint(), &builder, TAG_REPORT, now);
}

static void take_response(uint32_t tag, enum coap_outcome outcome,
                          const struct coap_message *response) {
    if (tag == BY_LINK_TAG_RESULT && link.commands) {
        link.commands->response(outcome, response);
    } else if (tag == TAG_REPORT) {
        /* Only a server that knows has something better to announce. */
        link.reporting = false;
        link.refused = RESULT_SUCCESS;
        radio_register(timer_now());
    } else {
        transfer_take_response(&link.transfer, tag, outcome, response, timer_now());
    }
}

static void end_transfer(void) {
    if (link.transfer.state == TRANSFER_FAILED) {
        by_link_retry(link.transfer.detail);
    } else if (link.transfer.state == TRANSFER_COMPLETE) {
        const uint8_t *const data = area();
        uint8_t digest[32];
        verify_sha256(data, link.announcement.size, digest, drain, NULL);
        if (memcmp(digest, link.announcement.file_digest, sizeof digest) != 0) {
            by_link_retry(result_text(RESULT_FILE_DIGEST));
            return;
        }
        transfer_end(&link.transfer);
        link.file = (struct by_link_file){
            .data = data,
            .length = link.announcement.size,
            .update_id = link.announcement.id,
            .image_digest = link.announcement.image_digest,
        };
    }
}

/* ---- For the restoration state ---- */

void by_link_start(const struct terminal *terminal, const struct by_link_commands *commands) {
    static struct radio_resource resources[2 + BY_LINK_COMMANDS] = {
        {"announce", COAP_POST, answer_announcement},
        {"status", COAP_GET, answer_status},
    };
    static struct radio_owner owner = {
        .resources = resources,
        .resource_count = 2,
        .register_again_us = REGISTER_AGAIN_US,
        .describe = describe,
        .contact = say_contact,
        .response = take_response,
    };
    link.terminal = terminal;
    link.commands = commands;
    for (size_t i = 0; commands && i < commands->resource_count; i++) {
        resources[owner.resource_count++] = commands->resources[i];
    }
    radio_protect(terminal->id.serial);
    radio_start(&owner, radio_seed(terminal->id.serial, terminal->journal.log.next));
}

void by_link_tick(void) {
    radio_poll(timer_now());
}

void by_link_poll(uint64_t now, uint32_t room, bool quiet) {
    link.room = room;
    link.quiet = quiet;
    radio_poll(now);
    transfer_poll(&link.transfer, now);
    end_transfer();
    report_refusal(now);
}

uint32_t by_link_held(void) {
    return link.held;
}

const struct by_link_file *by_link_file(void) {
    return link.file.data ? &link.file : NULL;
}

bool by_link_registered(void) {
    return radio_contact() == RADIO_REGISTERED;
}
