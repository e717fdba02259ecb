#include "lib/print.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

struct field {
    size_t width;
    bool zeros;
    bool left;
};

static void fill(print_put_fn *put, void *ctx, char character, size_t count) {
    while (count-- > 0) {
        put(ctx, character);
    }
}

static void put_field(print_put_fn *put, void *ctx, const struct field *field, const char *text,
                      size_t length) {
    const size_t padding = field->width > length ? field->width - length : 0;
    if (!field->left) {
        fill(put, ctx, ' ', padding);
    }
    for (size_t i = 0; i < length; i++) {
        put(ctx, text[i]);
    }
    if (field->left) {
        fill(put, ctx, ' ', padding);
    }
}

static void put_number(print_put_fn *put, void *ctx, const struct field *field, bool negative,
                       uint32_t value, char kind) {
    const char *digits = kind == 'X' ? "0123456789ABCDEF" : "0123456789abcdef";
    char text[11]; /* a sign and ten digits */
    size_t start = sizeof text;
    do {
        text[--start] = kind == 'u' ? digits[value % 10] : digits[value & 15u];
        value = kind == 'u' ? value / 10 : value >> 4;
    } while (value != 0);
    size_t length = sizeof text - start;
    if (field->zeros && !field->left) {
        if (negative) {
            put(ctx, '-');
            length++;
        }
        fill(put, ctx, '0', field->width > length ? field->width - length : 0);
        for (; start < sizeof text; start++) {
            put(ctx, text[start]);
        }
        return;
    }
    if (negative) {
        text[--start] = '-';
        length++;
    }
    put_field(put, ctx, field, text + start, length);
}

static const char *parse_field(const char *format, struct field *field) {
    *field = (struct field){0};
    for (; *format == '0' || *format == '-'; format++) {
        field->zeros |= *format == '0';
        field->left |= *format == '-';
    }
    for (; *format >= '0' && *format <= '9'; format++) {
        field->width = field->width * 10 + (size_t)(*format - '0');
    }
    return format;
}

void print_to_v(print_put_fn *put, void *ctx, const char *format, va_list arguments) {
    for (; *format != '\0'; format++) {
        if (*format != '%') {
            put(ctx, *format);
            continue;
        }
        struct field field;
        format = parse_field(format + 1, &field);
        switch (*format) {
        case 's': {
            const char *text = va_arg(arguments, const char *);
            put_field(put, ctx, &field, text, strlen(text));
            break;
        }
        case 'c': {
            const char character = (char)va_arg(arguments, int);
            put_field(put, ctx, &field, &character, 1);
            break;
        }
        case 'd': {
            const int32_t value = va_arg(arguments, int);
            put_number(put, ctx, &field, value < 0,
                       value < 0 ? 0u - (uint32_t)value : (uint32_t)value, 'u');
            break;
        }
        case 'u':
        case 'x':
        case 'X':
            put_number(put, ctx, &field, false, va_arg(arguments, unsigned), *format);
            break;
        case '\0':
            return;
        default: /* %% and what nobody should write */
            put(ctx, *format);
            break;
        }
    }
}

void print_to(print_put_fn *put, void *ctx, const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    print_to_v(put, ctx, format, arguments);
    va_end(arguments);
}

struct text_sink {
    char *buffer;
    size_t room;
    size_t length;
};

static void put_text(void *ctx, char character) {
    struct text_sink *sink = ctx;
    if (sink->length < sink->room) {
        sink->buffer[sink->length++] = character;
    }
}

size_t print_text(char *buffer, size_t size, const char *format, ...) {
    if (size == 0) {
        return 0;
    }
    struct text_sink sink = {buffer, size - 1, 0};
    va_list arguments;
    va_start(arguments, format);
    print_to_v(put_text, &sink, format, arguments);
    va_end(arguments);
    buffer[sink.length] = '\0';
    return sink.length;
}
