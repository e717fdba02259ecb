#include "agent/text.h"

#include <stddef.h>

#include "board/registers.h"

void text_say(const char *text) {
    for (; *text != '\0'; text++) {
        while (read32(BOARD_UART0 + UART_FR) & UART_FR_TXFF) {
        }
        write32(BOARD_UART0 + UART_DR, (uint8_t)*text);
    }
}

void text_say_number(uint32_t value) {
    char text[11];
    size_t start = sizeof text - 1;
    text[start] = '\0';
    do {
        text[--start] = (char)('0' + value % 10);
        value /= 10;
    } while (value != 0);
    text_say(&text[start]);
}

void text_flush(void) {
    while (!(read32(BOARD_UART0 + UART_FR) & UART_FR_TXFE) ||
           (read32(BOARD_UART0 + UART_FR) & UART_FR_BUSY)) {
    }
}
