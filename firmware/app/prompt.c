#include "app/prompt.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "board/say.h"
#include "board/uart.h"
#include "lib/text.h"

#define PROMPT "> "
/* So that a peer that never stops sending cannot keep the rest from running. */
#define MAX_BYTES_PER_POLL 256u

static struct {
    struct line_editor line;
    char typed[128];
    bool prompting; /* a prompt is shown, with what was typed so far */
} console;

static void put(void *ctx, char character) {
    size_t *length = ctx;
    if (length) {
        (*length)++;
    }
    uart_put(UART_WIRE, (uint8_t)character);
}

static void show_prompt(void) {
    say(PROMPT "%s", console.typed);
    console.prompting = true;
}

void console_say(const char *format, ...) {
    size_t length = 0;
    size_t covered = 0;
    if (console.prompting) {
        say("\r");
        covered = strlen(PROMPT) + console.line.length;
    }
    va_list arguments;
    va_start(arguments, format);
    print_to_v(put, &length, format, arguments);
    va_end(arguments);
    for (; length < covered; length++) {
        put(NULL, ' ');
    }
    say("\n");
    if (console.prompting) {
        show_prompt();
    }
}

void console_stop(void) {
    if (console.prompting) {
        say("\n");
        console.prompting = false;
    }
}

void console_start(void) {
    line_init(&console.line, console.typed, sizeof console.typed);
    show_prompt();
}

void console_poll(void (*run)(char *line)) {
    for (uint32_t i = 0; i < MAX_BYTES_PER_POLL; i++) {
        int byte = uart_get(UART_WIRE);
        if (byte < 0) {
            return;
        }
        if (line_feed(&console.line, (uint8_t)byte, put, NULL)) {
            console.prompting = false;
            run(console.typed);
            line_clear(&console.line);
            show_prompt();
        }
    }
}
