/* What must be known across power cuts about updates. One record is the whole state. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/recordlog.h"

enum journal_phase {
    JOURNAL_IDLE = 0,
    JOURNAL_REWRITING = 1,
    JOURNAL_TRIAL = 2,
    JOURNAL_FAILED = 3,
    JOURNAL_COMMANDED = 4
};
enum journal_source {
    JOURNAL_RADIO = 0, /* an update over the air */
    JOURNAL_WIRE = 1,  /* a restoration over the wire */
    JOURNAL_LINK = 2   /* a restoration over the wireless link */
};

#define JOURNAL_MAX_STARTS 3u

/* The application's partition was changed, or is about to be. */
#define JOURNAL_CHANGED 1u

struct journal_version {
    uint8_t major;
    uint8_t minor;
    uint16_t revision;
    uint32_t build;
};

struct journal_state {
    uint8_t phase;      /* enum journal_phase */
    uint8_t starts;     /* trial starts so far; while COMMANDED: JOURNAL_CHANGED or 0 */
    uint8_t source;     /* enum journal_source */
    uint8_t result;     /* of the last update, enum result */
    uint32_t update_id; /* 0: none */
    uint32_t security_counter;
    struct journal_version target_version;
    uint32_t target_size; /* bytes */
    uint8_t target_digest[32];
};

struct journal {
    struct recordlog log;
    struct journal_state state;
};

/* Read the state; IDLE and zeros when the partition is blank. Writes nothing. Returns a
 * recordlog_error; then `state` is IDLE and zeros, and journal_write refuses. */
int journal_mount(struct journal *journal, const struct flash *flash, uint32_t offset,
                  uint32_t size);

/* Make `state` the state. On an error the old one still counts. */
int journal_write(struct journal *journal, const struct journal_state *state);

/* More records than an update needs that fails its trial. */
#define JOURNAL_ROOM 12u

/* Make room for that many. When the flash does not take it, an update that has not begun need not
 * fail in the middle. */
int journal_make_room(struct journal *journal);

/* Make sure that the state that was read will be read again. IDLE that was sealed is sure: nothing
 * is written. IDLE that was not is written again, or affirmed when the journal takes no more. Any
 * other state is affirmed. */
int journal_affirm(struct journal *journal);
