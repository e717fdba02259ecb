#include "app/shell.h"

#include <stdbool.h>
#include <string.h>

#include "app/call.h"
#include "app/console_phonebook.h"
#include "app/identity.h"
#include "app/messages.h"
#include "app/pool.h"
#include "app/release.h"
#include "app/resource.h"
#include "app/tasks.h"
#include "app/verdict.h"
#include "board/say.h"
#include "board/system.h"
#include "board/uart.h"
#include "board/verify.h"
#include "board_map.h"
#include "lib/crc.h"
#include "lib/text.h"

/* ---- Commands: `rest` is what follows the command's name ---- */

static void show_identity(char *rest) {
    (void)rest;
    say("serial:   %s\n", identity()->terminal.serial);
    say("hardware: %s\n", identity()->terminal.hardware_id);
}

static void say_digest(const uint8_t digest[IMAGE_DIGEST_SIZE]) {
    for (size_t i = 0; i < IMAGE_DIGEST_SIZE; i++) {
        say("%02x", digest[i]);
    }
}

static void show_version(char *rest) {
    (void)rest;
    const struct identity *me = identity();
    say("%s %s, built %s\n", me->name, me->full_version, me->build_time);
    say("digest: ");
    say_digest(me->digest);
    say("\n");
    if (resource_size() > 0) {
        say("resources: %u bytes, crc %08x\n", resource_size(),
            crc32(0, resource_data(), resource_size()));
    }
}

static void drain(void *ctx) {
    (void)ctx;
    uart_poll();
}

/* Not what the image says about itself, but what lies in the NOR now, to its last byte. */
static void read_back(char *rest) {
    (void)rest;
    struct image image;
    int error = image_parse(&image, system_nor(BOARD_APPLICATION_OFFSET), BOARD_APPLICATION_SIZE);
    if (error != IMAGE_OK) {
        say("no software in the NOR, %s\n", image_error_text(error));
        return;
    }
    uint8_t digest[IMAGE_DIGEST_SIZE];
    verify_sha256(image.start, image.total, digest, drain, NULL);
    say("sha256: ");
    say_digest(digest);
    say(", %u bytes in the NOR\n", image.total);
}

static void show_region(uintptr_t address, uint32_t size, const char *holder) {
    say("0x%08x %8u  %s\n", (uint32_t)address, size, holder);
}

static void show_memory(char *rest) {
    (void)rest;
    show_region(BOARD_SRAM_BASE, BOARD_POOL_BASE - BOARD_SRAM_BASE, "(program)");
    const struct pool_region *region;
    for (size_t i = 0; (region = pool_region(i)); i++) {
        show_region(region->address, region->size, region->holder);
    }
    show_region(BOARD_AGENT_BASE, BOARD_AGENT_SIZE, "(agent)");
    say("largest free block: %u bytes\n", pool_largest_free());
#if FEATURE_MEMORY_SUMMARY
    say("pool: %u bytes, %u held, %u free\n", pool_size(), pool_size() - pool_free(), pool_free());
#endif
}

static void show_tasks(char *rest) {
    static const char *const states[] = {
        [TASK_RUNNING] = "running",
        [TASK_SUSPENDED] = "suspended",
        [TASK_ENDED] = "ended",
        [TASK_WITHOUT_MEMORY] = "no memory",
    };
    static const char *const limits[] = {
        [TASK_NEVER_LIMITED] = "never limited",
        [TASK_SUSPEND] = "may be suspended",
        [TASK_END] = "may be ended",
    };
    const char *option = text_next_word(&rest);
    bool verbose = option && strcmp(option, "-v") == 0;
    const struct task *task;
    for (size_t i = 0; (task = tasks_get(i)); i++) {
        say("%-8s %7u bytes, %s, %s", task->name, task->bytes, states[task->state],
            task->held ? "held" : limits[task->limit]);
        if (task->errors > 0) {
            say(", %u memory errors", task->errors);
        } else if (task->work > 0) {
            say(", works");
        }
        if (verbose) {
            say(", %u steps", task->work);
        }
        say("\n");
    }
}

static void hold_or_release(char *rest, bool hold) {
    const char *name = text_next_word(&rest);
    if (!name || !tasks_hold(name, hold)) {
        say("no such task: type %s and one of", hold ? "hold" : "release");
        const struct task *task;
        for (size_t i = 0; (task = tasks_get(i)); i++) {
            say(" %s", task->name);
        }
        say("\n");
        return;
    }
    say("%s %s\n", name, hold ? "held" : "released");
}

static void hold(char *rest) {
    hold_or_release(rest, true);
}

static void release(char *rest) {
    hold_or_release(rest, false);
}

static void show_messages(char *rest) {
    (void)rest;
    const char *text;
    size_t i = 0;
    for (; (text = messages_get(i)); i++) {
        say("%u: %s\n", (uint32_t)i + 1, text);
    }
    if (i == 0) {
        say("no messages\n");
    }
}

static void show_update(char *rest) {
    (void)rest;
    static const char *const phases[] = {
        [UPDATE_IDLE] = "idle",           [UPDATE_TRANSFERRING] = "transferring",
        [UPDATE_RECEIVED] = "received",   [UPDATE_CHECKED] = "checked",
        [UPDATE_REWRITING] = "rewriting", [UPDATE_FINISHED] = "finished",
    };
    struct update_summary summary = verdict_summary();
    say("phase: %s\n", phases[summary.phase]);
    if (summary.last_id == 0 && summary.last_result == RESULT_SUCCESS) {
        say("last update: none\n");
    } else {
        say("last update: %u, %s\n", summary.last_id, result_text(summary.last_result));
    }
    say("security counter: %u\n", summary.security_counter);
}

static void begin_call(char *rest) {
    (void)rest;
    if (call_start()) {
        say("calling the customer center: type the keys you press, hang up to end\n");
    } else {
        say("a call is on: type hang up to end it\n");
    }
}

static void hang_up(char *rest) {
    const char *word = text_next_word(&rest);
    if (!word || strcmp(word, "up") != 0) {
        say("type hang up\n");
    } else if (!call_hang_up()) {
        say("no call is on: type call\n");
    }
}

static void restart(char *rest) {
    (void)rest;
    system_restart();
}

/* ---- What can be typed ---- */

static void help(char *rest);

static const struct command {
    const char *name;
    const char *usage;
    const char *purpose;
    void (*run)(char *rest);
} commands[] = {
    {"help", "help", "this list", help},
    {"id", "id", "who this terminal is", show_identity},
    {"version", "version", "the software that runs", show_version},
    {"digest", "digest", "SHA-256 of the whole image as it lies in the NOR", read_back},
    {"mem", "mem", "who holds which memory", show_memory},
    {"tasks", "tasks [-v]", "what runs, with -v how much it has done", show_tasks},
    {"hold", "hold NAME", "keep a task from being limited by an update", hold},
    {"release", "release NAME", "undo hold", release},
    {"pb", "pb add NAME NUMBER", "add to the phonebook", console_phonebook},
    {"pb", "pb list", "show the phonebook", console_phonebook},
    {"pb", "pb del ID", "delete from the phonebook", console_phonebook},
#if FEATURE_FIND
    {"find", "find TEXT", "search the phonebook for a part of a name", console_find},
#endif
    {"messages", "messages", "the last text messages", show_messages},
    {"call", "call", "call the customer center; lines of 0-9 * # are then keys", begin_call},
    {"hang", "hang up", "end the call", hang_up},
    {"update", "update", "how the update goes, or went", show_update},
    {"reboot", "reboot", "start again", restart},
};
#define COMMAND_COUNT (sizeof commands / sizeof commands[0])

static void help(char *rest) {
    (void)rest;
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        say("%-20s %s\n", commands[i].usage, commands[i].purpose);
    }
}

void shell_run(char *line) {
    if (!text_is_printable(line, strlen(line))) {
        say("not readable as UTF-8 text: type it again\n");
        return;
    }
    if (call_press(line)) {
        return;
    }
    const char *name = text_next_word(&line);
    if (!name) {
        return;
    }
    for (size_t i = 0; i < COMMAND_COUNT; i++) {
        if (strcmp(commands[i].name, name) == 0) {
            commands[i].run(line);
            return;
        }
    }
    say("no command \"%s\": type help\n", name);
}
