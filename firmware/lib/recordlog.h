/* An append-only log of records of one fixed size in two halves of a partition of NOR flash, safe
 * against a power cut at any moment: the state after it is the one before or the one after the call
 * that was interrupted. docs/firmware.md says how. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/flash.h"

#define RECORDLOG_HEADER_SIZE 64u
#define RECORDLOG_MAX_PAYLOAD 124u
#define RECORDLOG_NONE UINT32_MAX

enum recordlog_error {
    RECORDLOG_OK = 0,
    RECORDLOG_FULL = -20,         /* no blank slot: compact */
    RECORDLOG_GEOMETRY = -21,     /* the partition or record size does not fit the flash */
    RECORDLOG_OTHER_FORMAT = -22, /* written by software with another format: nothing is touched */
    RECORDLOG_WRITE = -24,        /* the flash did not take what was written */
    RECORDLOG_PAYLOAD = -25,      /* the payload would look like a blank slot */
};

struct recordlog_config {
    uint32_t offset; /* of the partition, at a block */
    uint32_t size;   /* of the partition: two halves, each of whole blocks */
    uint32_t magic;  /* which log this is */
    uint32_t format; /* version of the records' format */
    uint32_t
        payload_size; /* of a record; 4 less than a multiple of 4, RECORDLOG_MAX_PAYLOAD at most */
};

struct recordlog {
    const struct flash *flash;
    struct recordlog_config config;
    uint32_t generation;
    uint32_t half;   /* offset of the half that counts, or RECORDLOG_NONE: a blank partition */
    uint32_t next;   /* offset of the first blank slot; at the half's end when there is none */
    uint32_t last;   /* offset of the newest valid record, or RECORDLOG_NONE */
    uint32_t format; /* found; config.format unless mounting said RECORDLOG_OTHER_FORMAT */
    bool affirmed;   /* what was read has been made sure of */
    int error;       /* of mounting: while it is not 0 nothing is written */
};

/* Find the half that counts and its end. Writes nothing. A partition without a valid header is an
 * empty log: the first append makes one. */
int recordlog_mount(struct recordlog *log, const struct flash *flash,
                    const struct recordlog_config *config);

/* Iterate over the valid records, oldest first: begin with RECORDLOG_NONE; returns the offset of
 * the next one or RECORDLOG_NONE. */
uint32_t recordlog_next(const struct recordlog *log, uint32_t offset);

/* The payload of a valid record, in the NOR. */
const uint8_t *recordlog_payload(const struct recordlog *log, uint32_t offset);

/* How many slots a half has. */
uint32_t recordlog_slots(const struct recordlog *log);

/* How many slots are left before a compaction is needed. */
uint32_t recordlog_free(const struct recordlog *log);

/* Make sure of what was read: header and newest record are programmed again with the same bytes;
 * torn remains, and the first blank slot, where a program may have begun, are cleared to zero. Done
 * by itself before the first append or compaction after a mount or a seal. */
int recordlog_affirm(struct recordlog *log);

/* Whether the newest record was sealed, and nothing was begun behind it: there is one cleared slot,
 * and no more. A record with nothing behind it may have been written when the power was cut, and
 * read otherwise another time. With more behind it, a record may have been begun that reads as
 * blank. A partition without a valid header is sure, and so is a log that mounting refused. */
bool recordlog_is_sure(const struct recordlog *log);

/* Add a record. RECORDLOG_FULL when there is no room; the log is unchanged then. */
int recordlog_append(struct recordlog *log, const void *payload);

/* Say that the record just appended is whole, so that no later start need write it again
 * (recordlog_is_sure). The next append affirms the log before. */
int recordlog_seal(struct recordlog *log);

/* Whether the record at `offset` is to be kept. */
typedef bool recordlog_keep_fn(void *ctx, const struct recordlog *log, uint32_t offset);

/* Move the records that `keep` wants into the other half, in their order. Offsets of records are
 * other ones after it. */
int recordlog_compact(struct recordlog *log, recordlog_keep_fn *keep, void *ctx);

/* The half that a compaction has left behind begins to count again when the other one is erased.
 * After this it does not: whoever lets somebody else erase the partition, block by block, calls it
 * before. */
int recordlog_drop_older(struct recordlog *log);

/* Erase everything and begin anew, whatever was there: the person's data is lost. */
int recordlog_format(struct recordlog *log, const struct flash *flash,
                     const struct recordlog_config *config);

const char *recordlog_error_text(int error);
