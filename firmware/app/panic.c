#include "app/panic.h"

#include <stdarg.h>
#include <stdint.h>

#include "app/prompt.h"
#include "board/say.h"
#include "board/system.h"
#include "board/uart.h"

static void put(void *ctx, char character) {
    (void)ctx;
    uart_put(UART_WIRE, (uint8_t)character);
}

void panic(const char *format, ...) {
    console_stop();
    say("panic: ");
    va_list arguments;
    va_start(arguments, format);
    print_to_v(put, NULL, format, arguments);
    va_end(arguments);
    say("\n");
    system_restart();
}

void system_exception(const char *kind, uint32_t pc) {
    panic("%s at 0x%08x", kind, pc);
}
