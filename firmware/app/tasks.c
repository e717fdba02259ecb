#include "app/tasks.h"

#include <string.h>

#include "app/pool.h"
#include "app/release.h"

#define KIB 1024u
#define WINDOW_WORDS (2u * KIB / sizeof(uint32_t))

/* Memory is taken in this order from low to high addresses, so that limiting in the order of
   priority makes one free block grow downwards from the end of the pool. */
static struct task tasks[] = {
    {.name = "voice", .bytes = 80 * KIB, .priority = 5, .limit = TASK_NEVER_LIMITED},
    {.name = "logger", .bytes = 192 * KIB, .priority = 4, .limit = TASK_SUSPEND},
    {.name = "maps", .bytes = 384 * KIB, .priority = 3, .limit = TASK_SUSPEND},
    {.name = "media", .bytes = MEDIA_KIB * KIB, .priority = 2, .limit = TASK_SUSPEND},
    {.name = "browser", .bytes = BROWSER_KIB * KIB, .priority = 1, .limit = TASK_END},
};
#define TASK_COUNT (sizeof tasks / sizeof tasks[0])

static size_t turn;

/* The first word of what a task writes as its window number `filled`; the following words count
   up. Differs between tasks and between all windows written in sequence. */
static uint32_t first_word(const struct task *task, uint32_t filled) {
    return (task->priority << 28) ^ (filled * 0x9E3779B9u);
}

static uint32_t *window(const struct task *task, uint32_t filled) {
    uint32_t windows = task->bytes / (WINDOW_WORDS * (uint32_t)sizeof(uint32_t));
    return task->buffer + filled % windows * WINDOW_WORDS;
}

static bool window_is_intact(const struct task *task, uint32_t filled) {
    const uint32_t *words = window(task, filled);
    uint32_t first = first_word(task, filled);
    uint32_t differences = 0;
    for (uint32_t i = 0; i < WINDOW_WORDS; i++) {
        differences |= words[i] ^ (first + i);
    }
    return differences == 0;
}

static void step(struct task *task) {
    uint32_t windows = task->bytes / (WINDOW_WORDS * (uint32_t)sizeof(uint32_t));
    /* The window before this one, and what the last pass over the buffer left in this one. */
    if (task->filled > 0 && !window_is_intact(task, task->filled - 1)) {
        task->errors++;
    }
    if (task->filled >= windows && !window_is_intact(task, task->filled - windows)) {
        task->errors++;
    }
    uint32_t *words = window(task, task->filled);
    uint32_t first = first_word(task, task->filled);
    for (uint32_t i = 0; i < WINDOW_WORDS; i++) {
        words[i] = first + i;
    }
    task->filled++;
    task->work++;
}

/* Memory and a first step, so that a running task has always worked. */
static bool run(struct task *task) {
    task->buffer = pool_take(task->name, task->bytes);
    if (!task->buffer) {
        return false;
    }
    task->filled = 0;
    task->state = TASK_RUNNING;
    step(task);
    return true;
}

void tasks_start(void) {
    for (size_t i = 0; i < TASK_COUNT; i++) {
        if (!run(&tasks[i])) {
            tasks[i].state = TASK_WITHOUT_MEMORY;
        }
    }
}

const struct task *tasks_self_check(void) {
    for (size_t i = 0; i < TASK_COUNT; i++) {
        struct task *task = &tasks[i];
        if (task->state != TASK_RUNNING) {
            return task;
        }
        step(task);
        step(task);
        if (task->errors > 0) {
            return task;
        }
    }
    return NULL;
}

void tasks_step(void) {
    for (size_t i = 0; i < TASK_COUNT; i++) {
        struct task *task = &tasks[turn];
        turn = (turn + 1) % TASK_COUNT;
        if (task->state == TASK_RUNNING) {
            step(task);
            return;
        }
    }
}

const struct task *tasks_limit_next(void) {
    struct task *next = NULL;
    for (size_t i = 0; i < TASK_COUNT; i++) {
        struct task *task = &tasks[i];
        if (task->state == TASK_RUNNING && !task->held && task->limit != TASK_NEVER_LIMITED &&
            (!next || task->priority < next->priority)) {
            next = task;
        }
    }
    if (next) {
        pool_give(next->buffer);
        next->buffer = NULL;
        next->state = next->limit == TASK_END ? TASK_ENDED : TASK_SUSPENDED;
    }
    return next;
}

const struct task *tasks_resume_next(void) {
    struct task *next = NULL;
    for (size_t i = 0; i < TASK_COUNT; i++) {
        struct task *task = &tasks[i];
        if ((task->state == TASK_SUSPENDED || task->state == TASK_ENDED) &&
            (!next || task->priority > next->priority)) {
            next = task;
        }
    }
    if (next && next->state == TASK_ENDED) {
        next->work = 0;
        next->errors = 0;
    }
    return next && run(next) ? next : NULL;
}

const struct task *tasks_get(size_t index) {
    return index < TASK_COUNT ? &tasks[index] : NULL;
}

bool tasks_hold(const char *name, bool held) {
    for (size_t i = 0; i < TASK_COUNT; i++) {
        if (strcmp(tasks[i].name, name) == 0) {
            tasks[i].held = held;
            return true;
        }
    }
    return false;
}
