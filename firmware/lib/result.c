#include "lib/result.h"

const char *result_text(int result) {
    static const char *const texts[RESULT_COUNT] = {
        [RESULT_SUCCESS] = "success",
        [RESULT_NO_MEMORY] = "not enough SRAM",
        [RESULT_TOO_LARGE] = "too large for the partition",
        [RESULT_UNKNOWN_KIND] = "unknown kind",
        [RESULT_BAD_ANNOUNCEMENT] = "malformed announcement",
        [RESULT_BUSY] = "busy with another update",
        [RESULT_TRANSFER_FAILED] = "transfer gave up",
        [RESULT_FILE_DIGEST] = "file digest wrong",
        [RESULT_IMAGE_MALFORMED] = "image malformed",
        [RESULT_IMAGE_HASH] = "image hash wrong",
        [RESULT_SIGNATURE] = "signature wrong or missing",
        [RESULT_OTHER_HARDWARE] = "for other hardware",
        [RESULT_TOO_OLD] = "older than the security counter",
        [RESULT_INTERRUPTED] = "interrupted before anything was rewritten",
        [RESULT_REWRITE_FAILED] = "rewrite failed, restoration needed",
        [RESULT_TRIAL_FAILED] = "trial failed, restoration needed",
        [RESULT_RESTORED] = "restored over the wire",
        [RESULT_RESTORED_BY_LINK] = "restored over the wireless link",
        [RESULT_WRONG_BASE] = "made for other installed software",
        [RESULT_NOT_REBUILT] = "the differential file makes no image",
        [RESULT_USERDATA_CHANGED] = "the user's data has changed since its backup",
        [RESULT_OUT_OF_TURN] = "out of turn",
        [RESULT_ERASE_FAILED] = "erase failed",
        [RESULT_PROGRAM_FAILED] = "program failed",
        [RESULT_OTHER_CONTENT] = "the NOR holds something else",
        [RESULT_BACKUP_UNREADABLE] = "the backup cannot be opened",
        [RESULT_NO_ROOM] = "no room for the user's data",
        [RESULT_USERDATA_UNREADABLE] = "the user's data cannot be read",
    };
    return result >= 0 && result < RESULT_COUNT ? texts[result] : "unknown result";
}
