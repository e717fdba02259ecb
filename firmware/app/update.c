#include "app/update.h"

#include <string.h>

#include "agent/agent.h"
#include "app/identity.h"
#include "app/panic.h"
#include "app/pool.h"
#include "app/prompt.h"
#include "app/registration.h"
#include "app/staging.h"
#include "app/storage.h"
#include "app/tasks.h"
#include "app/verdict.h"
#include "board/timer.h"
#include "board/uart.h"
#include "board/verify.h"
#include "board_map.h"
#include "lib/delta.h"
#include "lib/text.h"
#include "link/transfer.h"

#define MAX_REPORTS 8u
#define TAG_REPORT UPDATE_FIRST_TAG
#define TAG_FIRST_BLOCK (UPDATE_FIRST_TAG + 1u)

struct decision {
    enum result result;
    uint64_t needed;   /* bytes */
    uint64_t possible; /* bytes */
};

struct report {
    uint32_t id;
    enum update_phase phase;
    enum result result;
};

static struct {
    struct announcement file;
    uint8_t *area;            /* the staging area */
    const uint8_t *new_image; /* in the area, once it is checked */
    struct transfer transfer;
    uint32_t tenths; /* of the file, that were said to be received */
    struct image image;

    struct report reports[MAX_REPORTS]; /* first in, first out; the first is being sent */
    uint32_t report_count;
    bool reporting;
} update;

static void drain_uarts(void *ctx) {
    (void)ctx;
    uart_poll();
}

/* ---- Reports ---- */

static void report(uint32_t id, enum update_phase phase, enum result result) {
    if (update.report_count < MAX_REPORTS) {
        update.reports[update.report_count++] = (struct report){id, phase, result};
    }
}

static void send_report(uint64_t now) {
    struct coap_builder builder;
    if (update.report_count == 0 || update.reporting ||
        !coap_request_begin(radio_endpoint(), &builder, COAP_POST)) {
        return;
    }
    const struct report *first = &update.reports[0];
    struct registration me;
    registration_describe(&me);
    coap_build_path(&builder, "report");
    maps_put_report(&builder, &me, first->id, first->phase, first->result);
    update.reporting = coap_request_send(radio_endpoint(), &builder, TAG_REPORT, now);
}

static void end_report(enum coap_outcome outcome) {
    update.reporting = false;
    if (outcome == COAP_TIMEOUT) {
        /* Nobody listens. The registration says how the update ended, whenever it gets through. */
        update.report_count = 0;
    } else {
        update.report_count--;
        memmove(&update.reports[0], &update.reports[1],
                update.report_count * sizeof update.reports[0]);
    }
}

/* ---- The transfer state ---- */

static void resume_tasks(void) {
    const struct task *task;
    while ((task = tasks_resume_next())) {
        console_say("update: resumed %s", task->name);
    }
}

static struct staging_plan plan_of(const struct announcement *file) {
    return (struct staging_plan){
        .differential = file->kind == KIND_DIFFERENTIAL,
        .file_size = file->size,
        .image_size = file->image_size,
        .working_memory = file->working_memory,
    };
}

/* Limits only as much as is needed for a free block of `size` bytes; false: it cannot be had. */
static bool make_room(uint64_t size) {
    const struct task *task;
    while (pool_largest_free() < size && (task = tasks_limit_next())) {
        console_say("update: limited %s, %u bytes", task->name, task->bytes);
    }
    return pool_largest_free() >= size;
}

/* Secures the staging area: for all of it at the same time, or else for as much as will do. */
static struct decision secure_area(void) {
    const struct staging_plan plan = plan_of(&update.file);
    struct decision decision = {.needed = staging_whole(&plan)};
    bool room = make_room(decision.needed);
    if (!room && staging_least(&plan) < decision.needed) {
        resume_tasks(); /* not more than this needs is to be limited */
        decision.needed = staging_least(&plan);
        room = make_room(decision.needed);
    }
    decision.possible = pool_largest_free();
    update.area = room ? pool_take("update", (uint32_t)decision.needed) : NULL;
    if (!update.area) {
        resume_tasks();
        decision.result = RESULT_NO_MEMORY;
        return decision;
    }
    staging_begin(&plan, update.area, decision.needed);
    console_say("update: secured %u bytes at 0x%08x", (uint32_t)decision.needed,
                (uint32_t)(uintptr_t)update.area);
    return decision;
}

static void end(enum result result) {
    verdict_end(update.file.id, result);
}

static void fail(enum result result, const char *detail) {
    transfer_end(&update.transfer);
    pool_give(update.area);
    update.area = NULL;
    end(result);
    if (detail) {
        console_say("update: failed, %s: %s", result_text(result), detail);
    } else {
        console_say("update: failed, %s", result_text(result));
    }
    resume_tasks();
    report(update.file.id, UPDATE_FINISHED, result);
    registration_send_soon();
}

/* ---- The announcement ---- */

static enum result judge(const struct announcement *file) {
    switch (file->kind) {
    case KIND_FULL_IMAGE:
        if (file->size == 0 || file->size != file->image_size) {
            return RESULT_BAD_ANNOUNCEMENT;
        }
        break;
    case KIND_DIFFERENTIAL:
        if (file->size < DELTA_MIN_HEADER_SIZE || file->image_size == 0 ||
            file->working_memory > DELTA_MAX_MEMORY) {
            return RESULT_BAD_ANNOUNCEMENT;
        }
        break;
    default:
        return RESULT_UNKNOWN_KIND;
    }
    return file->image_size > BOARD_APPLICATION_SIZE ? RESULT_TOO_LARGE : RESULT_SUCCESS;
}

static void begin_transfer(void) {
    verdict_enter(UPDATE_TRANSFERRING);
    transfer_begin(&update.transfer, radio_endpoint(), TAG_FIRST_BLOCK, &update.file,
                   &staging_sink);
    update.tenths = 0;
    report(update.file.id, UPDATE_TRANSFERRING, RESULT_SUCCESS);
}

static struct decision decide(const struct announcement *announcement) {
    if (verdict_phase() != UPDATE_IDLE) {
        /* The server may not know that its announcement arrived: then it says it again. */
        bool same = announcement->id == update.file.id &&
                    memcmp(announcement->file_digest, update.file.file_digest, 32) == 0;
        return (struct decision){.result = same ? RESULT_SUCCESS : RESULT_BUSY};
    }
    update.file = *announcement;
    console_say("update: announced %s, %u bytes", announcement->version, announcement->size);
    struct decision decision = {.result = judge(announcement)};
    if (decision.result == RESULT_TOO_LARGE) {
        decision.needed = announcement->image_size;
        decision.possible = BOARD_APPLICATION_SIZE;
    } else if (decision.result == RESULT_SUCCESS) {
        decision = secure_area();
    }
    if (decision.result == RESULT_SUCCESS) {
        begin_transfer();
    } else {
        end(decision.result);
    }
    return decision;
}

void update_answer_announcement(const struct coap_message *request, struct coap_builder *reply) {
    struct announcement announcement;
    if (!maps_get_announcement(request, &announcement)) {
        coap_build_code(reply, COAP_BAD_REQUEST);
        return;
    }
    identity_shorten_version(announcement.version);
    struct decision decision = decide(&announcement);
    char text[96];
    print_text(text, sizeof text, "%s", result_text(decision.result));
    if (decision.needed > decision.possible) {
        /* More than 32 bits' worth is as good as the largest number. */
        uint32_t needed = decision.needed > UINT32_MAX ? UINT32_MAX : (uint32_t)decision.needed;
        print_text(text, sizeof text, "%s: %u bytes needed, %u possible",
                   result_text(decision.result), needed, (uint32_t)decision.possible);
    }
    if (decision.result != RESULT_SUCCESS) {
        console_say("update: refused, %s", text);
    }
    maps_answer_decision(reply, decision.result, decision.needed, decision.possible, text);
}

void update_answer_status(const struct coap_message *request, struct coap_builder *reply) {
    (void)request;
    const struct update_summary now = verdict_summary();
    bool idle = now.phase == UPDATE_IDLE;
    maps_answer_status(reply, now.phase, idle ? now.last_id : update.file.id,
                       idle ? 0 : update.transfer.received, idle ? 0 : update.file.size);
}

/* ---- The transfer ---- */

static void say_progress(void) {
    uint32_t tenths = update.tenths;
    while (tenths < 10 &&
           (uint64_t)update.transfer.received * 10 >= (uint64_t)update.file.size * (tenths + 1)) {
        tenths++;
    }
    if (tenths > update.tenths) {
        update.tenths = tenths;
        console_say("update: received %u %%", tenths * 10);
    }
}

void update_take_response(uint32_t tag, enum coap_outcome outcome,
                          const struct coap_message *response) {
    if (tag == TAG_REPORT) {
        end_report(outcome);
        return;
    }
    if (verdict_phase() == UPDATE_TRANSFERRING) {
        transfer_take_response(&update.transfer, tag, outcome, response, timer_now());
        say_progress();
    }
}

/* ---- The checks and the rewrite ---- */

static void check(void) {
    int result = staging_finish(update.file.file_digest, &update.new_image);
    if (result != RESULT_SUCCESS) {
        fail((enum result)result, NULL);
        return;
    }
    const struct verify_rules rules = {
        .hardware_id = identity()->terminal.hardware_id,
        .minimum_counter = verdict_security_counter(),
        .partition_size = BOARD_APPLICATION_SIZE,
        .progress = drain_uarts,
    };
    result = verify_image(update.new_image, update.file.image_size, &rules, &update.image);
    if (result != RESULT_SUCCESS) {
        fail((enum result)result, NULL);
    } else if (update.image.total != update.file.image_size) {
        fail(RESULT_IMAGE_MALFORMED, "not of the announced size");
    } else if (memcmp(update.image.digest, update.file.image_digest, IMAGE_DIGEST_SIZE) != 0) {
        fail(RESULT_IMAGE_HASH, "not the announced image");
    } else {
        console_say("update: checked");
        verdict_enter(UPDATE_CHECKED);
        report(update.file.id, UPDATE_CHECKED, RESULT_SUCCESS);
        report(update.file.id, UPDATE_REWRITING, RESULT_SUCCESS);
    }
}

/* A journal that cannot be written is found out while the old software is still there. */
static bool make_room_in_journal(void) {
    const int error = journal_make_room(storage_journal());
    if (error) {
        fail(RESULT_INTERRUPTED, recordlog_error_text(error));
    }
    return error == RECORDLOG_OK;
}

static void rewrite(void) {
    if (!make_room_in_journal()) {
        return;
    }
    struct journal_state state = storage_journal()->state;
    state.phase = JOURNAL_REWRITING;
    state.starts = 0;
    state.source = JOURNAL_RADIO;
    state.result = RESULT_SUCCESS;
    state.update_id = update.file.id;
    state.target_version.major = update.image.version.major;
    state.target_version.minor = update.image.version.minor;
    state.target_version.revision = update.image.version.revision;
    state.target_version.build = update.image.version.build;
    state.target_size = update.image.total;
    memcpy(state.target_digest, update.image.digest, sizeof state.target_digest);
    int error = journal_write(storage_journal(), &state);
    if (error) {
        fail(RESULT_INTERRUPTED, recordlog_error_text(error));
        return;
    }
    verdict_enter(UPDATE_REWRITING);
    console_stop();
    uart_flush(UART_RADIO);
    const struct rewrite_job job = {
        .image = update.new_image,
        .length = update.image.total,
        .offset = BOARD_APPLICATION_OFFSET,
    };
    AGENT->rewrite(&job);
}

void update_poll(uint64_t now) {
    send_report(now);
    transfer_poll(&update.transfer, now);
    if (update.transfer.state == TRANSFER_FAILED) {
        fail(update.transfer.result, update.transfer.detail);
    }
    if (update.transfer.state == TRANSFER_COMPLETE) {
        transfer_end(&update.transfer);
        verdict_enter(UPDATE_RECEIVED);
        report(update.file.id, UPDATE_RECEIVED, RESULT_SUCCESS);
        check();
    }
    /* The server is told before the terminal falls silent. */
    if (verdict_phase() == UPDATE_CHECKED && update.report_count == 0) {
        rewrite();
    }
}

/* ---- Start ---- */

void update_start(void) {
    struct journal *journal = storage_journal();
    struct journal_state state = journal->state;
    if (state.phase == JOURNAL_TRIAL) {
        state.phase = JOURNAL_IDLE;
        state.starts = 0;
        state.result = state.source == JOURNAL_WIRE   ? RESULT_RESTORED
                       : state.source == JOURNAL_LINK ? RESULT_RESTORED_BY_LINK
                                                      : RESULT_SUCCESS;
        state.security_counter = verdict_security_counter();
        int error = journal_write(journal, &state);
        if (error) {
            panic("the new software cannot be confirmed, %s", recordlog_error_text(error));
        }
        console_say("update: %s confirmed", identity()->version);
        if (state.update_id != 0) {
            report(state.update_id, UPDATE_FINISHED, (enum result)state.result);
        }
    }
    verdict_end(state.update_id, (enum result)state.result);
}
