/* Bugs that are built in on purpose, one at a time, so that the campaign can be seen to find them
 * (docs/bugs.md): a build with -DBUG_SEEDED=BUG_HEADER_FIRST has that one. Without it there is
 * none, and the compiler leaves nothing of them. */
#pragma once

enum bug {
    BUG_NONE,
    BUG_JOURNAL_NOT_WRITTEN,
    BUG_COUNTER_TOO_EARLY,
    BUG_COUNTER_NOT_RAISED,
    BUG_HEADER_FIRST,
    BUG_HASH_NOT_CHECKED,
    BUG_SIGNATURE_NOT_CHECKED,
    BUG_TORN_BLOCK_KEPT,
    BUG_ONE_BLOCK_TOO_MANY,
    BUG_TARGET_REGISTERED,
    BUG_STAGED_OVER_LIVE,
    BUG_TRIAL_NOT_COUNTED,
    BUG_TRIAL_COUNT_WRAPS,
    BUG_FAILURE_FORGOTTEN,
    BUG_CONFIRMED_UNCHECKED,
    BUG_HEALTHY_START_WRITES,
    BUG_UNLOCK_FORGOTTEN,
    BUG_READY_NOT_AWAITED,
    BUG_ERASE_FROM_NOR,
    BUG_LOG_ENDS_AT_TORN,
    BUG_RECORD_NOT_CHECKED,
    BUG_COMPACTION_HEADER_FIRST,
    BUG_COMPACTION_NO_ERASE,
    BUG_LIVE_HALF_ERASED,
    BUG_SELF_RESTORATION_GIVES_UP,
    BUG_SELF_RESTORATION_UNCHECKED,
    BUG_WIRE_FORGOTTEN,
    BUG_DONE_TOO_EARLY,
};

#ifndef BUG_SEEDED
#define BUG_SEEDED BUG_NONE
#endif

/* Whether this build has the bug `name`. */
#define BUG(name) (BUG_SEEDED == BUG_##name)
