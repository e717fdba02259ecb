/* An application for tests/test_firmware_build.py: does with the agent what a line on UART0 says.
 *
 *     p OFFSET LENGTH SEED   program a pattern
 *     n OFFSET FROM LENGTH   program what the NOR holds at FROM
 *     e OFFSET               erase
 *     x                      take an exception in this program
 *     y ADDRESS              put an instruction that is none there, and have the agent rewrite
 *
 * All numbers are decimal. The answer is `= STATUS`. */
#include "agent/agent.h"
#include "board/nor.h"
#include "board/say.h"
#include "board/system.h"
#include "board/timer.h"
#include "board/uart.h"
#include "lib/text.h"

static uint8_t pattern[8192];

_Noreturn void system_exception(const char *kind, uint32_t pc) {
    (void)pc;
    say("probe: %s\n", kind);
    system_restart();
}

static void nothing(void *ctx, char character) {
    (void)ctx;
    (void)character;
}

static uint32_t number(char **cursor) {
    uint32_t value = 0;
    const char *word = text_next_word(cursor);
    if (word == NULL || !text_to_uint(word, UINT32_MAX, &value)) {
        say("? a number is missing\n");
    }
    return value;
}

static void obey(char *line) {
    char *cursor = line;
    const char *word = text_next_word(&cursor);
    int status = -100;
    switch (word ? word[0] : '\0') {
    case 'p': {
        const uint32_t offset = number(&cursor);
        const uint32_t length = number(&cursor);
        const uint32_t seed = number(&cursor);
        for (uint32_t i = 0; i < length && i < sizeof pattern; i++) {
            pattern[i] = (uint8_t)(seed + 7 * i + (i >> 8));
        }
        status = AGENT->program(offset, pattern, length);
        break;
    }
    case 'n': {
        const uint32_t offset = number(&cursor);
        const uint32_t from = number(&cursor);
        status = AGENT->program(offset, system_nor(from), number(&cursor));
        break;
    }
    case 'e':
        status = AGENT->erase(number(&cursor));
        break;
    case 'x':
        __builtin_trap();
    case 'y':
        *(volatile uint16_t *)(uintptr_t)number(&cursor) = 0xde00; /* undefined, for ever */
        __asm__ volatile("dsb\n\tisb");
        AGENT->rewrite(&(struct rewrite_job){
            .image = pattern,
            .length = 4,
            .offset = BOARD_USERDATA_OFFSET,
        });
    default:
        break;
    }
    say("= %d\n", status);
}

_Noreturn void main(void) {
    static uint8_t rings[UART_COUNT][256];
    static char text[80];
    struct line_editor line;
    struct flash flash;
    timer_init();
    uart_init(UART_WIRE, rings[0], sizeof rings[0]);
    uart_init(UART_RADIO, rings[1], sizeof rings[1]);
    const int status = nor_init(&flash);
    const struct nor_geometry *geometry = AGENT->geometry();
    say("probe: %d %u %u %u\n", status, (unsigned)geometry->size, (unsigned)geometry->block_size,
        (unsigned)geometry->write_buffer);
    line_init(&line, text, sizeof text);
    for (;;) {
        const int byte = uart_get(UART_WIRE);
        if (byte < 0) {
            timer_sleep_until(TIMER_NEVER);
        } else if (line_feed(&line, (uint8_t)byte, nothing, NULL)) {
            obey(text);
            line_clear(&line);
        }
    }
}
