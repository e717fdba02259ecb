#include "board/say.h"

#include <stdarg.h>

#include "board/uart.h"

static void put(void *ctx, char character) {
    (void)ctx;
    if (character == '\n') {
        uart_put(UART_WIRE, '\r');
    }
    uart_put(UART_WIRE, (uint8_t)character);
}

void say(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print_to_v(put, NULL, format, arguments);
    va_end(arguments);
}
