/* The terminal's software that uses SRAM: cooperative tasks that really work in their memory. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What happens to a task when its memory is needed for an update. */
enum task_limit {
    TASK_NEVER_LIMITED,
    TASK_SUSPEND, /* gives up its memory, continues later where it was */
    TASK_END,     /* must be started anew */
};

enum task_state { TASK_RUNNING, TASK_SUSPENDED, TASK_ENDED, TASK_WITHOUT_MEMORY };

struct task {
    const char *name;
    uint32_t bytes;
    uint32_t priority; /* the lowest is limited first */
    enum task_limit limit;

    enum task_state state;
    bool held;        /* by the user: it is not limited */
    uint32_t *buffer; /* NULL while it has no memory */
    uint32_t filled;  /* windows written since it got its memory */
    uint32_t work;    /* windows written since it was started */
    uint32_t errors;  /* windows that were not found as they were left */
};

/* Gives every task its memory from the pool. A task that gets none is TASK_WITHOUT_MEMORY. */
void tasks_start(void);

/* Two steps of every task: all run and find their memory as they left it. Otherwise returns the
   task that does not, else NULL. */
const struct task *tasks_self_check(void);

/* One short step of the task whose turn it is. */
void tasks_step(void);

/* Limits the running task of the lowest priority that may be limited, and returns it; NULL when
   there is none. */
const struct task *tasks_limit_next(void);

/* Resumes the limited task of the highest priority, so that memory is laid out as before, and
   returns it; NULL when there is none (or no memory for it). */
const struct task *tasks_resume_next(void);

/* Task number `index`, highest priority first; NULL after the last. */
const struct task *tasks_get(size_t index);

/* Holds or releases the task called `name`; false when there is none. */
bool tasks_hold(const char *name, bool held);
