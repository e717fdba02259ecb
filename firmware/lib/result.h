/* How an update ended, as the protocol numbers it (docs/protocol.md, "result"). */
#pragma once

enum result {
    RESULT_SUCCESS = 0,
    RESULT_NO_MEMORY = 1,
    RESULT_TOO_LARGE = 2,
    RESULT_UNKNOWN_KIND = 3,
    RESULT_BAD_ANNOUNCEMENT = 4,
    RESULT_BUSY = 5,
    RESULT_TRANSFER_FAILED = 6,
    RESULT_FILE_DIGEST = 7,
    RESULT_IMAGE_MALFORMED = 8,
    RESULT_IMAGE_HASH = 9,
    RESULT_SIGNATURE = 10,
    RESULT_OTHER_HARDWARE = 11,
    RESULT_TOO_OLD = 12,
    RESULT_INTERRUPTED = 13,
    RESULT_REWRITE_FAILED = 14,
    RESULT_TRIAL_FAILED = 15,
    RESULT_RESTORED = 16,
    RESULT_RESTORED_BY_LINK = 17,
    RESULT_WRONG_BASE = 18,
    RESULT_NOT_REBUILT = 19,
    RESULT_USERDATA_CHANGED = 20,
    RESULT_OUT_OF_TURN = 21,
    RESULT_ERASE_FAILED = 22,
    RESULT_PROGRAM_FAILED = 23,
    RESULT_OTHER_CONTENT = 24,
    RESULT_BACKUP_UNREADABLE = 25,
    RESULT_NO_ROOM = 26,
    RESULT_USERDATA_UNREADABLE = 27,
};

#define RESULT_COUNT 28

/* The words of docs/protocol.md; "unknown result" for other numbers. */
const char *result_text(int result);
