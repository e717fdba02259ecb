#include "app/staging.h"

#include <sodium/crypto_hash_sha256.h>
#include <string.h>

#include "board/system.h"
#include "board/uart.h"
#include "board/verify.h"
#include "board_map.h"
#include "lib/delta.h"
#include "lib/result.h"

#define THROUGH_ROOM (TRANSFER_WINDOW * TRANSFER_BLOCK)

static struct {
    struct staging_plan plan;
    uint8_t *image; /* where the new image is, or is rebuilt */
    uint8_t *memory;
    uint8_t *file;            /* the file, or the blocks of it that were not decoded yet */
    bool through;             /* blocks are decoded as they arrive and do not stay */
    uint32_t next;            /* when `through`: the first block that was not decoded */
    uint32_t waiting;         /* when `through`: a bit for each block of the window that is there */
    struct delta_header head; /* of a differential file, when its first block is there */
    struct delta *decoder;    /* NULL until the first block is there */
    crypto_hash_sha256_state hash; /* when `through`: of the file so far */
} staging;

static uint64_t aligned(uint64_t size) {
    return (size + 7) & ~(uint64_t)7;
}

static uint64_t to_rebuild(const struct staging_plan *plan) {
    return aligned(plan->image_size) + aligned(plan->working_memory);
}

uint64_t staging_whole(const struct staging_plan *plan) {
    return plan->differential ? to_rebuild(plan) + plan->file_size : plan->file_size;
}

uint64_t staging_least(const struct staging_plan *plan) {
    const uint64_t whole = staging_whole(plan);
    const uint64_t through = to_rebuild(plan) + THROUGH_ROOM;
    return plan->differential && through < whole ? through : whole;
}

void staging_begin(const struct staging_plan *plan, uint8_t *area, uint64_t size) {
    memset(&staging, 0, sizeof staging);
    staging.plan = *plan;
    staging.image = area;
    staging.file = area;
    if (plan->differential) {
        staging.memory = area + aligned(plan->image_size);
        staging.file = area + to_rebuild(plan);
        staging.through = size < staging_whole(plan);
    }
    crypto_hash_sha256_init(&staging.hash);
}

static uint8_t *place(uint32_t number) {
    return staging.file + (staging.through ? number % TRANSFER_WINDOW : number) * TRANSFER_BLOCK;
}

static bool has_room(uint32_t number) {
    return !staging.through || number < staging.next + TRANSFER_WINDOW;
}

static void drain(void *ctx) {
    (void)ctx;
    uart_poll();
}

static void hash_base(uint8_t digest[32], const uint8_t *data, uint32_t length) {
    verify_sha256(data, length, digest, drain, NULL);
}

static int result_of(int error) {
    if (error == DELTA_OK) {
        return RESULT_SUCCESS;
    }
    return error == DELTA_WRONG_BASE ? RESULT_WRONG_BASE : RESULT_NOT_REBUILT;
}

/* The head of the file is there: it must fit the installed image and the announcement. */
static int begin_decoding(const uint8_t *head, uint32_t length) {
    const struct delta_job job = {
        .base = system_nor(BOARD_APPLICATION_OFFSET),
        .base_size = BOARD_APPLICATION_SIZE,
        .image = staging.image,
        .image_size = staging.plan.image_size,
        .memory = staging.memory,
        .memory_size = staging.plan.working_memory,
        .sha256 = hash_base,
        .progress = uart_poll,
    };
    int error = delta_parse_header(&staging.head, head, length);
    if (!error && staging.head.length != staging.plan.image_size) {
        error = DELTA_BAD_HEADER;
    }
    if (!error) {
        staging.decoder = delta_begin(&job, &staging.head, &error);
    }
    return result_of(error);
}

static int decode(const uint8_t *data, uint32_t length) {
    return result_of(delta_feed(staging.decoder, data, length));
}

static uint32_t length_of(uint32_t number) {
    const uint32_t rest = staging.plan.file_size - number * TRANSFER_BLOCK;
    return rest < TRANSFER_BLOCK ? rest : TRANSFER_BLOCK;
}

static int decode_what_is_there(void) {
    while (staging.waiting & 1u << staging.next % TRANSFER_WINDOW) {
        const uint8_t *block = place(staging.next);
        const uint32_t length = length_of(staging.next);
        const uint32_t head = staging.next == 0 ? staging.head.size : 0;
        crypto_hash_sha256_update(&staging.hash, block, length);
        const int result = decode(block + head, length - head);
        if (result != RESULT_SUCCESS) {
            return result;
        }
        staging.waiting &= ~(1u << staging.next % TRANSFER_WINDOW);
        staging.next++;
    }
    return RESULT_SUCCESS;
}

static int take(uint32_t number, const uint8_t *data, uint32_t length) {
    memcpy(place(number), data, length);
    if (staging.plan.differential && number == 0) {
        const int result = begin_decoding(data, length);
        if (result != RESULT_SUCCESS) {
            return result;
        }
    }
    if (!staging.through) {
        return RESULT_SUCCESS;
    }
    staging.waiting |= 1u << number % TRANSFER_WINDOW;
    return decode_what_is_there();
}

const struct transfer_sink staging_sink = {.has_room = has_room, .take = take};

int staging_finish(const uint8_t file_digest[32], const uint8_t **image) {
    uint8_t digest[32];
    if (staging.through) {
        crypto_hash_sha256_final(&staging.hash, digest);
    } else {
        verify_sha256(staging.file, staging.plan.file_size, digest, drain, NULL);
    }
    if (memcmp(digest, file_digest, sizeof digest) != 0) {
        return RESULT_FILE_DIGEST;
    }
    *image = staging.image;
    if (!staging.plan.differential) {
        return RESULT_SUCCESS;
    }
    int result = RESULT_SUCCESS;
    if (!staging.through) {
        result =
            decode(staging.file + staging.head.size, staging.plan.file_size - staging.head.size);
    }
    return result == RESULT_SUCCESS ? result_of(delta_finish(staging.decoder)) : result;
}
