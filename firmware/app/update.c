#include "update.h"

#include <string.h>

#include "agent/agent.h"
#include "board/timer.h"
#include "board/uart.h"
#include "board/verify.h"
#include "board_map.h"
#include "console.h"
#include "identity.h"
#include "lib/bug.h"
#include "lib/cbor.h"
#include "lib/text.h"
#include "link.h"
#include "panic.h"
#include "pool.h"
#include "storage.h"
#include "tasks.h"

#define SECOND_US 1000000u
/* A block that was answered with something useless is asked for again after this. */
#define PAUSE_US (2u * SECOND_US)
/* How long blocks that were given up are tried afresh without any answer. */
#define SILENCE_US (60u * SECOND_US)

#define BLOCK_SZX 6u
#define BLOCK_SIZE COAP_BLOCK_SIZE(BLOCK_SZX)
#define ETAG_LENGTH 8u
#define MAX_VERSION_TEXT 31u
#define KIND_FULL_IMAGE 0u

/* Requests under way at the same time: at 115200 baud a block takes 95 ms, so that 4 of them
   bridge a round trip of 250 ms without a gap. */
#define WINDOW 4u
#define MAX_REPORTS 8u
#define TAG_REPORT LINK_TAG_UPDATE
#define TAG_FIRST_BLOCK (LINK_TAG_UPDATE + 1u)

struct announcement {
    uint32_t id;
    uint32_t kind;
    uint32_t size; /* bytes of the file */
    uint8_t file_digest[32];
    char version[MAX_VERSION_TEXT + 1];
    uint8_t image_digest[IMAGE_DIGEST_SIZE];
    uint32_t image_size;
    uint32_t working_memory;
};

struct decision {
    enum result result;
    uint64_t needed;   /* bytes */
    uint64_t possible; /* bytes */
};

enum slot_state { SLOT_FREE, SLOT_ASKED, SLOT_PAUSED };

/* One of the requests that may be under way, and the block that it is for. */
struct slot {
    enum slot_state state;
    uint32_t block;
    uint64_t again_at; /* when SLOT_PAUSED */
};

struct report {
    uint32_t id;
    enum update_phase phase;
    enum result result;
};

static struct {
    enum update_phase phase;
    struct announcement file;
    uint8_t *area; /* the staging area */
    struct slot slots[WINDOW];
    uint32_t next_block;
    uint32_t blocks;
    uint32_t received; /* bytes */
    uint32_t tenths;   /* of the file, that were said to be received */
    bool silent;       /* a request was given up, and nothing useful came since `silent_since` */
    uint64_t silent_since;
    struct image image;

    struct report reports[MAX_REPORTS]; /* first in, first out; the first is being sent */
    uint32_t report_count;
    bool reporting;

    uint32_t last_id;
    enum result last_result;
} update;

static uint32_t security_counter(void) {
    uint32_t kept = storage_journal()->state.security_counter;
    uint32_t running = identity()->security_counter;
    return kept > running ? kept : running;
}

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
        !coap_request_begin(link_endpoint(), &builder, COAP_POST)) {
        return;
    }
    const struct report *first = &update.reports[0];
    const struct identity *me = identity();
    uint8_t payload[320];
    struct cbor_encoder map;
    cbor_encoder_init(&map, payload, sizeof payload);
    cbor_put_map(&map, 7);
    cbor_pair_text(&map, 1, me->terminal.serial);
    cbor_pair_uint(&map, 2, first->id);
    cbor_pair_uint(&map, 3, first->phase);
    cbor_pair_uint(&map, 4, first->result);
    cbor_pair_text(&map, 5, me->full_version);
    cbor_pair_bytes(&map, 6, me->digest, sizeof me->digest);
    cbor_pair_text(&map, 7, result_text(first->result));

    coap_build_path(&builder, "report");
    coap_build_cbor(&builder, payload, cbor_encoder_finish(&map));
    update.reporting = coap_request_send(link_endpoint(), &builder, TAG_REPORT, now);
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

/* Limits only as much as is needed, and secures the staging area. */
static struct decision secure_area(void) {
    struct decision decision = {.needed = (uint64_t)update.file.size + update.file.working_memory};
    const struct task *task;
    while (pool_largest_free() < decision.needed && (task = tasks_limit_next())) {
        console_say("update: limited %s, %u bytes", task->name, task->bytes);
    }
    decision.possible = pool_largest_free();
    if (BUG(STAGED_OVER_LIVE)) {
        update.area = (uint8_t *)tasks_get(0)->buffer; /* as if its task had been limited */
        return decision;
    }
    update.area =
        decision.possible < decision.needed ? NULL : pool_take("update", (uint32_t)decision.needed);
    if (!update.area) {
        resume_tasks();
        decision.result = RESULT_NO_MEMORY;
        return decision;
    }
    console_say("update: secured %u bytes at 0x%08x", (uint32_t)decision.needed,
                (uint32_t)(uintptr_t)update.area);
    return decision;
}

static void end(enum result result) {
    update.phase = UPDATE_IDLE;
    update.last_id = update.file.id;
    update.last_result = result;
}

static void fail(enum result result, const char *detail) {
    for (uint32_t i = 0; i < WINDOW; i++) {
        coap_request_cancel(link_endpoint(), TAG_FIRST_BLOCK + i);
    }
    pool_give(update.area);
    update.area = NULL;
    end(result);
    if (detail) {
        console_say("update: failed, %s: %s", result_text(result), detail);
    } else {
        console_say("update: failed, %s", result_text(result));
    }
    resume_tasks();
    report(update.last_id, UPDATE_FINISHED, result);
    link_register_soon();
}

/* ---- The announcement ---- */

static bool decode_announcement(const struct coap_message *request,
                                struct announcement *announcement) {
    enum { ID, KIND, SIZE, FILE_DIGEST, VERSION, IMAGE_DIGEST, IMAGE_SIZE, MEMORY, COUNT };
    struct cbor_field fields[COUNT] = {
        [ID] = {.key = 1, .kind = CBOR_UINT, .minimum = 1, .maximum = UINT32_MAX},
        [KIND] = {.key = 2, .kind = CBOR_UINT, .maximum = UINT32_MAX},
        [SIZE] = {.key = 3, .kind = CBOR_UINT, .maximum = UINT32_MAX},
        [FILE_DIGEST] = {.key = 4, .kind = CBOR_BYTES, .minimum = 32, .maximum = 32},
        [VERSION] = {.key = 5, .kind = CBOR_TEXT, .minimum = 1, .maximum = MAX_VERSION_TEXT},
        [IMAGE_DIGEST] = {.key = 6, .kind = CBOR_BYTES, .minimum = 32, .maximum = 32},
        [IMAGE_SIZE] = {.key = 7, .kind = CBOR_UINT, .maximum = UINT32_MAX},
        [MEMORY] = {.key = 8, .kind = CBOR_UINT, .maximum = UINT32_MAX},
    };
    for (size_t i = 0; i < COUNT; i++) {
        fields[i].required = true;
    }
    if (cbor_decode_map(request->payload, request->payload_length, fields, COUNT) != CBOR_OK ||
        !text_is_printable(fields[VERSION].data, fields[VERSION].length) ||
        !cbor_copy_text(&fields[VERSION], announcement->version, sizeof announcement->version)) {
        return false;
    }
    identity_shorten_version(announcement->version);
    announcement->id = (uint32_t)fields[ID].number;
    announcement->kind = (uint32_t)fields[KIND].number;
    announcement->size = (uint32_t)fields[SIZE].number;
    announcement->image_size = (uint32_t)fields[IMAGE_SIZE].number;
    announcement->working_memory = (uint32_t)fields[MEMORY].number;
    memcpy(announcement->file_digest, fields[FILE_DIGEST].data, 32);
    memcpy(announcement->image_digest, fields[IMAGE_DIGEST].data, IMAGE_DIGEST_SIZE);
    return true;
}

static enum result judge(const struct announcement *file) {
    if (file->kind != KIND_FULL_IMAGE) {
        return RESULT_UNKNOWN_KIND;
    }
    if (file->size == 0 || file->size != file->image_size) {
        return RESULT_BAD_ANNOUNCEMENT;
    }
    return file->image_size > BOARD_APPLICATION_SIZE ? RESULT_TOO_LARGE : RESULT_SUCCESS;
}

static void begin_transfer(void) {
    update.phase = UPDATE_TRANSFERRING;
    memset(update.slots, 0, sizeof update.slots);
    update.next_block = 0;
    update.blocks = (update.file.size + BLOCK_SIZE - 1) / BLOCK_SIZE;
    update.received = 0;
    update.tenths = 0;
    update.silent = false;
    report(update.file.id, UPDATE_TRANSFERRING, RESULT_SUCCESS);
}

static struct decision decide(const struct announcement *announcement) {
    if (update.phase != UPDATE_IDLE) {
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
    if (!decode_announcement(request, &announcement)) {
        coap_build_code(reply, COAP_BAD_REQUEST);
        return;
    }
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
    uint8_t payload[160];
    struct cbor_encoder map;
    cbor_encoder_init(&map, payload, sizeof payload);
    cbor_put_map(&map, 4);
    cbor_pair_uint(&map, 1, decision.result);
    cbor_pair_uint(&map, 2, decision.needed);
    cbor_pair_uint(&map, 3, decision.possible);
    cbor_pair_text(&map, 4, text);
    coap_build_code(reply, COAP_CHANGED);
    coap_build_cbor(reply, payload, cbor_encoder_finish(&map));
}

void update_answer_status(const struct coap_message *request, struct coap_builder *reply) {
    (void)request;
    bool idle = update.phase == UPDATE_IDLE;
    uint8_t payload[48];
    struct cbor_encoder map;
    cbor_encoder_init(&map, payload, sizeof payload);
    cbor_put_map(&map, 4);
    cbor_pair_uint(&map, 1, update.phase);
    cbor_pair_uint(&map, 2, idle ? update.last_id : update.file.id);
    cbor_pair_uint(&map, 3, idle ? 0 : update.received);
    cbor_pair_uint(&map, 4, idle ? 0 : update.file.size);
    coap_build_code(reply, COAP_CONTENT);
    coap_build_cbor(reply, payload, cbor_encoder_finish(&map));
}

/* ---- The transfer ---- */

static void ask(struct slot *slot, uint64_t now) {
    slot->state = SLOT_PAUSED;
    slot->again_at = now;
    struct coap_builder builder;
    if (!coap_request_begin(link_endpoint(), &builder, COAP_GET)) {
        return; /* all exchanges are under way: at the next poll */
    }
    char path[16];
    print_text(path, sizeof path, "file/%u", update.file.id);
    const struct coap_block block = {.number = slot->block, .more = false, .szx = BLOCK_SZX};
    coap_build_path(&builder, path);
    coap_build_block2(&builder, &block);
    uint32_t tag = TAG_FIRST_BLOCK + (uint32_t)(slot - update.slots);
    if (coap_request_send(link_endpoint(), &builder, tag, now)) {
        slot->state = SLOT_ASKED;
    }
}

static void ask_next(struct slot *slot, uint64_t now) {
    if (update.next_block < update.blocks) {
        slot->block = update.next_block++;
        ask(slot, now);
    }
}

static void pause(struct slot *slot, uint64_t now, uint32_t microseconds) {
    slot->state = SLOT_PAUSED;
    slot->again_at = now + microseconds;
    if (!update.silent) {
        update.silent = true;
        update.silent_since = now;
    }
}

static bool has_etag(const struct coap_message *response) {
    struct coap_option etag;
    return coap_find_option(response, COAP_OPTION_ETAG, &etag) && etag.length == ETAG_LENGTH &&
           memcmp(etag.value, update.file.file_digest, ETAG_LENGTH) == 0;
}

/* Whether the response holds exactly the block that was asked for. */
static bool is_block(const struct coap_message *response, uint32_t number) {
    uint32_t rest = update.file.size - number * BLOCK_SIZE;
    struct coap_block block;
    return coap_block2(response, &block) && block.number == number && block.szx == BLOCK_SZX &&
           block.more == (rest > BLOCK_SIZE) &&
           response->payload_length == (rest > BLOCK_SIZE ? BLOCK_SIZE : rest);
}

static void say_progress(void) {
    uint32_t tenths = update.tenths;
    while (tenths < 10 &&
           (uint64_t)update.received * 10 >= (uint64_t)update.file.size * (tenths + 1)) {
        tenths++;
    }
    if (tenths > update.tenths) {
        update.tenths = tenths;
        console_say("update: received %u %%", tenths * 10);
    }
}

static void take_block(struct slot *slot, const struct coap_message *response, uint64_t now) {
    if (COAP_CODE_CLASS(response->code) == 4) {
        fail(RESULT_TRANSFER_FAILED, response->code == COAP_NOT_FOUND
                                         ? "the server has cancelled it"
                                         : "the server refuses a block");
    } else if (response->code != COAP_CONTENT || !is_block(response, slot->block)) {
        pause(slot, now, PAUSE_US);
    } else if (!has_etag(response)) {
        fail(RESULT_FILE_DIGEST, "the server has another file");
    } else {
        memcpy(update.area + slot->block * BLOCK_SIZE, response->payload, response->payload_length);
        update.received += (uint32_t)response->payload_length;
        update.silent = false;
        slot->state = SLOT_FREE;
        /* First the next request, so that the line stays busy, then words for people. */
        ask_next(slot, now);
        say_progress();
    }
}

void update_take_response(uint32_t tag, enum coap_outcome outcome,
                          const struct coap_message *response) {
    if (tag == TAG_REPORT) {
        end_report(outcome);
        return;
    }
    if (update.phase != UPDATE_TRANSFERRING || tag - TAG_FIRST_BLOCK >= WINDOW) {
        return;
    }
    struct slot *slot = &update.slots[tag - TAG_FIRST_BLOCK];
    uint64_t now = timer_now();
    if (outcome == COAP_RESPONSE) {
        take_block(slot, response, now);
    } else {
        pause(slot, now, outcome == COAP_TIMEOUT ? 0 : PAUSE_US);
    }
}

static void continue_transfer(uint64_t now) {
    for (uint32_t i = 0; i < WINDOW; i++) {
        struct slot *slot = &update.slots[i];
        if (slot->state == SLOT_FREE) {
            ask_next(slot, now);
        } else if (slot->state == SLOT_PAUSED && now >= slot->again_at) {
            ask(slot, now);
        }
    }
    if (update.silent && now > update.silent_since + SILENCE_US) {
        fail(RESULT_TRANSFER_FAILED, "no answer");
    }
}

/* ---- The checks and the rewrite ---- */

static void check(void) {
    uint8_t digest[32];
    verify_sha256(update.area, update.file.size, digest, drain_uarts, NULL);
    if (memcmp(digest, update.file.file_digest, sizeof digest) != 0) {
        fail(RESULT_FILE_DIGEST, NULL);
        return;
    }
    const struct verify_rules rules = {
        .hardware_id = identity()->terminal.hardware_id,
        .minimum_counter = security_counter(),
        .partition_size = BOARD_APPLICATION_SIZE,
        .progress = drain_uarts,
    };
    int result = verify_image(update.area, update.file.size, &rules, &update.image);
    if (result != RESULT_SUCCESS) {
        fail((enum result)result, NULL);
    } else if (update.image.total != update.file.image_size) {
        fail(RESULT_IMAGE_MALFORMED, "not of the announced size");
    } else if (memcmp(update.image.digest, update.file.image_digest, IMAGE_DIGEST_SIZE) != 0) {
        fail(RESULT_IMAGE_HASH, "not the announced image");
    } else {
        console_say("update: checked");
        update.phase = UPDATE_CHECKED;
        report(update.file.id, UPDATE_CHECKED, RESULT_SUCCESS);
        report(update.file.id, UPDATE_REWRITING, RESULT_SUCCESS);
    }
}

static void rewrite(void) {
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
    if (BUG(COUNTER_TOO_EARLY)) {
        state.security_counter = update.image.security_counter;
    }
    int error = BUG(JOURNAL_NOT_WRITTEN) ? 0 : journal_write(storage_journal(), &state);
    if (error) {
        fail(RESULT_INTERRUPTED, recordlog_error_text(error));
        return;
    }
    update.phase = UPDATE_REWRITING;
    console_stop();
    uart_flush(UART_RADIO);
    const struct rewrite_job job = {
        .image = update.area,
        .length = update.image.total,
        .offset = BOARD_APPLICATION_OFFSET,
    };
    AGENT->rewrite(&job);
}

void update_poll(uint64_t now) {
    send_report(now);
    if (update.phase == UPDATE_TRANSFERRING) {
        continue_transfer(now);
    }
    if (update.phase == UPDATE_TRANSFERRING && update.received == update.file.size) {
        update.phase = UPDATE_RECEIVED;
        report(update.file.id, UPDATE_RECEIVED, RESULT_SUCCESS);
        check();
    }
    /* The server is told before the terminal falls silent. */
    if (update.phase == UPDATE_CHECKED && update.report_count == 0) {
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
        state.result = state.source == JOURNAL_WIRE ? RESULT_RESTORED : RESULT_SUCCESS;
        if (!BUG(COUNTER_NOT_RAISED)) {
            state.security_counter = security_counter();
        }
        int error = journal_write(journal, &state);
        if (error) {
            panic("the new software cannot be confirmed, %s", recordlog_error_text(error));
        }
        console_say("update: %s confirmed", identity()->version);
        if (state.update_id != 0) {
            report(state.update_id, UPDATE_FINISHED, (enum result)state.result);
        }
    }
    update.last_id = state.update_id;
    update.last_result = (enum result)state.result;
}

struct update_summary update_summary(void) {
    return (struct update_summary){
        .phase = update.phase,
        .last_id = update.last_id,
        .last_result = update.last_result,
        .security_counter = security_counter(),
    };
}
