/* The transfer of an announced file, block by block (RFC 7959). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/coap.h"
#include "lib/result.h"
#include "link/maps.h"

/* Requests under way at the same time: at 115200 baud a block takes 95 ms, so that 4 of them
   bridge a round trip of 250 ms without a gap. */
#define TRANSFER_WINDOW 4u
#define TRANSFER_ETAG 8u
#define TRANSFER_SZX 6u
#define TRANSFER_BLOCK COAP_BLOCK_SIZE(TRANSFER_SZX)

/* Where the blocks go. All have TRANSFER_BLOCK bytes but the last. */
struct transfer_sink {
    /* Whether block `number` may be asked for: there is room for it when it comes. NULL: always. */
    bool (*has_room)(uint32_t number);
    /* Takes a block that was not taken before. RESULT_SUCCESS, or why the file is of no use. */
    int (*take)(uint32_t number, const uint8_t *data, uint32_t length);
};

enum transfer_state { TRANSFER_NONE, TRANSFER_RUNNING, TRANSFER_COMPLETE, TRANSFER_FAILED };

enum transfer_slot_state { SLOT_FREE, SLOT_ASKED, SLOT_PAUSED };

/* One of the requests that may be under way. Slot n asks for the blocks n, n + TRANSFER_WINDOW, ...
 */
struct transfer_slot {
    enum transfer_slot_state state;
    uint32_t block;    /* that is asked for, or will be */
    uint64_t again_at; /* when SLOT_PAUSED */
};

struct transfer {
    enum transfer_state state;
    enum result result; /* why it failed, when it has, and in words */
    const char *detail;
    uint32_t received; /* bytes */

    struct coap_endpoint *endpoint; /* from here on private */
    uint32_t first_tag;
    uint32_t id;
    uint32_t size;
    uint8_t etag[TRANSFER_ETAG];
    const struct transfer_sink *sink;
    struct transfer_slot slots[TRANSFER_WINDOW];
    uint32_t blocks;
    bool silent; /* a request was given up, and nothing useful came since `silent_since` */
    uint64_t silent_since;
};

/* Begins to fetch what was announced. Blocks come in any order, but never one that is
 * TRANSFER_WINDOW or more behind the first that is missing and has_room() refused. Uses the tags
 * from `first_tag` on, TRANSFER_WINDOW of them. The first requests are sent by transfer_poll. */
void transfer_begin(struct transfer *transfer, struct coap_endpoint *endpoint, uint32_t first_tag,
                    const struct announcement *file, const struct transfer_sink *sink);

/* Does what is due. `now` in microseconds. */
void transfer_poll(struct transfer *transfer, uint64_t now);

/* Takes the end of a request with one of its tags; other tags are passed over. */
void transfer_take_response(struct transfer *transfer, uint32_t tag, enum coap_outcome outcome,
                            const struct coap_message *response, uint64_t now);

/* Forgets it, and the requests under way. */
void transfer_end(struct transfer *transfer);
