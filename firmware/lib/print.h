/* Formatted output over a callback. Knows %s %c %d %u %x %X %% with a width and the flags '0' and
 * '-', nothing else; %d, %u and %x take an int or unsigned of 32 bits. */
#pragma once

#include <stdarg.h>
#include <stddef.h>

typedef void print_put_fn(void *ctx, char character);

#if defined(__GNUC__)
#define PRINT_FORMAT(format_, first_) __attribute__((format(printf, format_, first_)))
#else
#define PRINT_FORMAT(format_, first_)
#endif

void print_to(print_put_fn *put, void *ctx, const char *format, ...) PRINT_FORMAT(3, 4);
void print_to_v(print_put_fn *put, void *ctx, const char *format, va_list arguments)
    PRINT_FORMAT(3, 0);

/* Into a buffer of `size` bytes, always terminated when size > 0. Returns the length that the text
 * has in the buffer: what did not fit is cut. */
size_t print_text(char *buffer, size_t size, const char *format, ...) PRINT_FORMAT(3, 4);
