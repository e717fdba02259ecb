#include "link/transfer.h"

#include <string.h>

#include "lib/print.h"

#define SECOND_US 1000000u
/* A block that was answered with something useless is asked for again after this. */
#define PAUSE_US (2u * SECOND_US)
/* How long blocks that were given up are tried afresh without any answer. */
#define SILENCE_US (60u * SECOND_US)

static void fail(struct transfer *transfer, enum result result, const char *detail) {
    transfer->state = TRANSFER_FAILED;
    transfer->result = result;
    transfer->detail = detail;
}

static void ask(struct transfer *transfer, struct transfer_slot *slot, uint64_t now) {
    slot->state = SLOT_PAUSED;
    slot->again_at = now;
    struct coap_builder builder;
    if (!coap_request_begin(transfer->endpoint, &builder, COAP_GET)) {
        return; /* all exchanges are under way: at the next poll */
    }
    char path[16];
    print_text(path, sizeof path, "file/%u", transfer->id);
    const struct coap_block block = {.number = slot->block, .more = false, .szx = TRANSFER_SZX};
    coap_build_path(&builder, path);
    coap_build_block2(&builder, &block);
    const uint32_t tag = transfer->first_tag + (uint32_t)(slot - transfer->slots);
    if (coap_request_send(transfer->endpoint, &builder, tag, now)) {
        slot->state = SLOT_ASKED;
    }
}

static void ask_if_due(struct transfer *transfer, struct transfer_slot *slot, uint64_t now) {
    if (slot->state == SLOT_FREE && slot->block < transfer->blocks &&
        (!transfer->sink->has_room || transfer->sink->has_room(slot->block))) {
        ask(transfer, slot, now);
    }
}

static void pause(struct transfer *transfer, struct transfer_slot *slot, uint64_t now,
                  uint32_t microseconds) {
    slot->state = SLOT_PAUSED;
    slot->again_at = now + microseconds;
    if (!transfer->silent) {
        transfer->silent = true;
        transfer->silent_since = now;
    }
}

static bool has_etag(const struct transfer *transfer, const struct coap_message *response) {
    struct coap_option etag;
    return coap_find_option(response, COAP_OPTION_ETAG, &etag) && etag.length == TRANSFER_ETAG &&
           memcmp(etag.value, transfer->etag, TRANSFER_ETAG) == 0;
}

/* Whether the response holds exactly the block that was asked for. */
static bool is_block(const struct transfer *transfer, const struct coap_message *response,
                     uint32_t number) {
    const uint32_t rest = transfer->size - number * TRANSFER_BLOCK;
    struct coap_block block;
    return coap_block2(response, &block) && block.number == number && block.szx == TRANSFER_SZX &&
           block.more == (rest > TRANSFER_BLOCK) &&
           response->payload_length == (rest > TRANSFER_BLOCK ? TRANSFER_BLOCK : rest);
}

static void take_block(struct transfer *transfer, struct transfer_slot *slot,
                       const struct coap_message *response, uint64_t now) {
    if (COAP_CODE_CLASS(response->code) == 4) {
        fail(transfer, RESULT_TRANSFER_FAILED,
             response->code == COAP_NOT_FOUND ? "the server has cancelled it"
                                              : "the server refuses a block");
    } else if (response->code != COAP_CONTENT || !is_block(transfer, response, slot->block)) {
        pause(transfer, slot, now, PAUSE_US);
    } else if (!has_etag(transfer, response)) {
        fail(transfer, RESULT_FILE_DIGEST, "the server has another file");
    } else {
        const uint32_t length = (uint32_t)response->payload_length;
        const int result = transfer->sink->take(slot->block, response->payload, length);
        if (result != RESULT_SUCCESS) {
            fail(transfer, (enum result)result, NULL);
            return;
        }
        transfer->received += length;
        transfer->silent = false;
        slot->state = SLOT_FREE;
        slot->block += TRANSFER_WINDOW;
        ask_if_due(transfer, slot, now);
        if (transfer->received == transfer->size) {
            transfer->state = TRANSFER_COMPLETE;
        }
    }
}

void transfer_begin(struct transfer *transfer, struct coap_endpoint *endpoint, uint32_t first_tag,
                    const struct announcement *file, const struct transfer_sink *sink) {
    *transfer = (struct transfer){
        .state = TRANSFER_RUNNING,
        .endpoint = endpoint,
        .first_tag = first_tag,
        .id = file->id,
        .size = file->size,
        .sink = sink,
        .blocks = file->size / TRANSFER_BLOCK + (file->size % TRANSFER_BLOCK != 0),
    };
    memcpy(transfer->etag, file->file_digest, TRANSFER_ETAG);
    for (uint32_t i = 0; i < TRANSFER_WINDOW; i++) {
        transfer->slots[i].block = i;
    }
}

void transfer_poll(struct transfer *transfer, uint64_t now) {
    if (transfer->state != TRANSFER_RUNNING) {
        return;
    }
    for (uint32_t i = 0; i < TRANSFER_WINDOW; i++) {
        struct transfer_slot *slot = &transfer->slots[i];
        ask_if_due(transfer, slot, now);
        if (slot->state == SLOT_PAUSED && now >= slot->again_at) {
            ask(transfer, slot, now);
        }
    }
    if (transfer->silent && now > transfer->silent_since + SILENCE_US) {
        fail(transfer, RESULT_TRANSFER_FAILED, "no answer");
    }
}

void transfer_take_response(struct transfer *transfer, uint32_t tag, enum coap_outcome outcome,
                            const struct coap_message *response, uint64_t now) {
    if (transfer->state != TRANSFER_RUNNING || tag - transfer->first_tag >= TRANSFER_WINDOW) {
        return;
    }
    struct transfer_slot *slot = &transfer->slots[tag - transfer->first_tag];
    if (outcome == COAP_RESPONSE) {
        take_block(transfer, slot, response, now);
    } else {
        pause(transfer, slot, now, outcome == COAP_TIMEOUT ? 0 : PAUSE_US);
    }
}

void transfer_end(struct transfer *transfer) {
    for (uint32_t i = 0; transfer->state != TRANSFER_NONE && i < TRANSFER_WINDOW; i++) {
        coap_request_cancel(transfer->endpoint, transfer->first_tag + i);
    }
    transfer->state = TRANSFER_NONE;
}
