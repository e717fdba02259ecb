#include "agent/rewrite.h"

#include <string.h>

#include "agent/nor.h"
#include "agent/text.h"
#include "agent/vectors.h"
#include "board/registers.h"

#define TRIES 3

/* The part of the image that belongs into block `number`. */
static uint32_t part_length(const struct rewrite_job *job, uint32_t number) {
    const uint32_t size = nor_geometry()->block_size;
    const uint32_t left = job->length - number * size;
    return left < size ? left : size;
}

static bool differs(const struct rewrite_job *job, uint32_t number) {
    const uint32_t start = number * nor_geometry()->block_size;
    return memcmp(nor_at(job->offset + start), job->image + start, part_length(job, number)) != 0;
}

/* The first write buffer of the image, its header, is programmed after all the rest. */
static int program_block(const struct rewrite_job *job, uint32_t number) {
    const uint32_t start = number * nor_geometry()->block_size;
    const uint32_t length = part_length(job, number);
    const uint32_t buffer = nor_geometry()->write_buffer;
    uint32_t header = 0;
    if (number == 0) {
        header = length < buffer ? length : buffer;
    }
    const int status =
        nor_program(job->offset + start + header, job->image + start + header, length - header);
    return status == AGENT_OK ? nor_program(job->offset + start, job->image + start, header)
                              : status;
}

static int rewrite_block(const struct rewrite_job *job, uint32_t number) {
    int status = AGENT_ERASE_FAILED;
    for (int i = 0; i < TRIES && status != AGENT_OK; i++) {
        status = nor_erase(job->offset + number * nor_geometry()->block_size);
        if (status == AGENT_OK) {
            status = program_block(job, number);
        }
    }
    return status;
}

/* From the last block to the first, so that the header comes last of all. */
static bool rewrite_blocks(const struct rewrite_job *job, uint32_t blocks, uint32_t *failed) {
    for (uint32_t number = blocks; number-- > 0;) {
        *failed = job->offset + number * nor_geometry()->block_size;
        if (differs(job, number) && rewrite_block(job, number) != AGENT_OK) {
            return false;
        }
    }
    return true;
}

void rewrite(const struct rewrite_job *job) {
    /* The caller's code is about to vanish: nothing goes back to it, not even an exception. */
    vectors_enter();
    nor_on_wait(NULL);
    const uint32_t size = nor_geometry()->block_size;
    const uint32_t room = nor_geometry()->size;
    uint32_t failed = job->offset;
    bool done = false;
    if (size != 0 && job->length != 0 && job->offset % size == 0 && job->offset <= room &&
        job->length <= room - job->offset) {
        const uint32_t blocks = (job->length + size - 1) / size;
        uint32_t count = 0;
        for (uint32_t number = 0; number < blocks; number++) {
            count += differs(job, number);
        }
        text_say("agent: rewriting ");
        text_say_number(count);
        text_say(" of ");
        text_say_number(blocks);
        text_say(" blocks\r\n");
        done = rewrite_blocks(job, blocks, &failed);
    }
    if (done) {
        text_say("agent: done\r\n");
    } else {
        text_say("agent: failed, block at ");
        text_say_number(failed);
        text_say("\r\n");
    }
    text_flush();
    board_reset();
}
