/* The application: says its version, and answers a letter. A new version has one answer more, so
 * that its code moves, and the addresses in its tables with it. */
#include <stddef.h>
#include <stdint.h>

#include "layout.h"

#define IN_PAGE(name) __attribute__((section(".page." name), used))

static const char banner[] = {'A', 'P', 'P', ' ', 'v', '0' + VERSION, '\r', '\n', '\0'};

/* What no version changes: a page of its own. */
IN_PAGE("1") static const char help[] = "h: help\r\nv: version\r\nn: count\r\n";

static void say_help(void) {
    print(help);
}

#if VERSION > 1
static void count(void) {
    for (char digit = '0'; digit <= '9'; digit++) {
        uart_put((uint8_t)digit);
    }
    print("\r\n");
}
#endif

static void say_version(void) {
    print(banner);
}

/* A page of addresses. */
IN_PAGE("2") static const struct {
    uint8_t letter;
    void (*answer)(void);
} answers[] = {
    {'h', say_help},
    {'v', say_version},
#if VERSION > 1
    {'n', count},
#endif
};

int main(void) {
    uart_start();
    say_version();
    for (;;) {
        const uint8_t letter = uart_get();
        for (size_t i = 0; i < sizeof answers / sizeof answers[0]; i++) {
            if (answers[i].letter == letter) {
                answers[i].answer();
            }
        }
    }
}
