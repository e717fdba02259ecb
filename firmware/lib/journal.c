#include "lib/journal.h"

#include <string.h>

#include "lib/assert.h"

#define MAGIC 0x4C4E524Au /* "JRNL" in the flash */
#define FORMAT 1u
#define PAYLOAD_SIZE 60u

/* Where the fields are in a record; all little-endian. */
enum {
    AT_PHASE = 0,
    AT_STARTS = 1,
    AT_SOURCE = 2,
    AT_RESULT = 3,
    AT_UPDATE_ID = 4,
    AT_COUNTER = 8,
    AT_VERSION = 12,
    AT_SIZE = 20,
    AT_DIGEST = 24,
};

static void put16(uint8_t *bytes, uint16_t value) {
    bytes[0] = (uint8_t)value;
    bytes[1] = (uint8_t)(value >> 8);
}

static void put32(uint8_t *bytes, uint32_t value) {
    put16(bytes, (uint16_t)value);
    put16(bytes + 2, (uint16_t)(value >> 16));
}

static uint16_t get16(const uint8_t *bytes) {
    return (uint16_t)(bytes[0] | bytes[1] << 8);
}

static uint32_t get32(const uint8_t *bytes) {
    return get16(bytes) | (uint32_t)get16(bytes + 2) << 16;
}

static void encode(const struct journal_state *state, uint8_t *record) {
    memset(record, 0, PAYLOAD_SIZE);
    record[AT_PHASE] = state->phase;
    record[AT_STARTS] = state->starts;
    record[AT_SOURCE] = state->source;
    record[AT_RESULT] = state->result;
    put32(record + AT_UPDATE_ID, state->update_id);
    put32(record + AT_COUNTER, state->security_counter);
    record[AT_VERSION] = state->target_version.major;
    record[AT_VERSION + 1] = state->target_version.minor;
    put16(record + AT_VERSION + 2, state->target_version.revision);
    put32(record + AT_VERSION + 4, state->target_version.build);
    put32(record + AT_SIZE, state->target_size);
    memcpy(record + AT_DIGEST, state->target_digest, sizeof state->target_digest);
}

static void decode(const uint8_t *record, struct journal_state *state) {
    state->phase = record[AT_PHASE];
    state->starts = record[AT_STARTS];
    state->source = record[AT_SOURCE];
    state->result = record[AT_RESULT];
    state->update_id = get32(record + AT_UPDATE_ID);
    state->security_counter = get32(record + AT_COUNTER);
    state->target_version.major = record[AT_VERSION];
    state->target_version.minor = record[AT_VERSION + 1];
    state->target_version.revision = get16(record + AT_VERSION + 2);
    state->target_version.build = get32(record + AT_VERSION + 4);
    state->target_size = get32(record + AT_SIZE);
    memcpy(state->target_digest, record + AT_DIGEST, sizeof state->target_digest);
}

int journal_mount(struct journal *journal, const struct flash *flash, uint32_t offset,
                  uint32_t size) {
    const struct recordlog_config config = {
        .offset = offset,
        .size = size,
        .magic = MAGIC,
        .format = FORMAT,
        .payload_size = PAYLOAD_SIZE,
    };
    memset(&journal->state, 0, sizeof journal->state);
    const int error = recordlog_mount(&journal->log, flash, &config);
    if (error == RECORDLOG_OK && journal->log.last != RECORDLOG_NONE) {
        decode(recordlog_payload(&journal->log, journal->log.last), &journal->state);
    }
    return error;
}

static bool is_newest(void *ctx, const struct recordlog *log, uint32_t offset) {
    (void)ctx;
    return offset == log->last;
}

int journal_write(struct journal *journal, const struct journal_state *state) {
    ASSERT(journal->log.flash != NULL);
    ASSERT(state->phase <= JOURNAL_COMMANDED);
    uint8_t record[PAYLOAD_SIZE];
    encode(state, record);
    int error = recordlog_append(&journal->log, record);
    if (error == RECORDLOG_FULL) {
        error = recordlog_compact(&journal->log, is_newest, NULL);
        if (error == RECORDLOG_OK) {
            error = recordlog_append(&journal->log, record);
        }
    }
    if (error == RECORDLOG_OK) {
        journal->state = *state;
        /* The next start of a healthy terminal writes nothing. Boot writes again what was not
         * sealed. */
        if (state->phase == JOURNAL_IDLE) {
            (void)recordlog_seal(&journal->log);
        }
    }
    return error;
}

int journal_make_room(struct journal *journal) {
    ASSERT(journal->log.flash != NULL);
    return recordlog_free(&journal->log) < JOURNAL_ROOM
               ? recordlog_compact(&journal->log, is_newest, NULL)
               : RECORDLOG_OK;
}

int journal_affirm(struct journal *journal) {
    ASSERT(journal->log.flash != NULL);
    if (journal->state.phase != JOURNAL_IDLE) {
        return recordlog_affirm(&journal->log);
    }
    if (recordlog_is_sure(&journal->log) ||
        journal_write(journal, &journal->state) == RECORDLOG_OK) {
        return RECORDLOG_OK;
    }
    return recordlog_affirm(&journal->log); /* it takes no more: what is there has to do */
}
