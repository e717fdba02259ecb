#include "lib/text.h"

#include <string.h>

/* Reads one character of UTF-8. Returns its length in bytes, 0 when it is ill-formed. */
static size_t utf8_decode(const uint8_t *bytes, size_t length, uint32_t *character) {
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    const uint8_t first = bytes[0];
    if (first < 0x80) {
        *character = first;
        return 1;
    }
    const size_t size = (first & 0xE0u) == 0xC0   ? 2
                        : (first & 0xF0u) == 0xE0 ? 3
                        : (first & 0xF8u) == 0xF0 ? 4
                                                  : 0;
    if (size == 0 || size > length) {
        return 0;
    }
    uint32_t value = first & (0x7Fu >> size);
    for (size_t i = 1; i < size; i++) {
        if ((bytes[i] & 0xC0u) != 0x80) {
            return 0;
        }
        value = value << 6 | (bytes[i] & 0x3Fu);
    }
    if (value < smallest[size] || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) {
        return 0;
    }
    *character = value;
    return size;
}

static bool check(const void *data, size_t length, bool printable) {
    const uint8_t *bytes = data;
    size_t i = 0;
    while (i < length) {
        uint32_t character;
        const size_t size = utf8_decode(bytes + i, length - i, &character);
        if (size == 0) {
            return false;
        }
        if (printable && (character < 0x20 || (character >= 0x7F && character < 0xA0))) {
            return false;
        }
        i += size;
    }
    return true;
}

bool text_is_utf8(const void *data, size_t length) {
    return check(data, length, false);
}

bool text_is_printable(const void *data, size_t length) {
    return check(data, length, true);
}

void text_copy_shown(char *to, const uint8_t *text, size_t length) {
    for (size_t i = 0; i < length; i++) {
        const bool control = text[i] < 0x20 || text[i] == 0x7F;
        /* U+0080 to U+009F: 0xC2 and a byte below 0xA0. */
        const bool control_pair = text[i] == 0xC2 && i + 1 < length && text[i + 1] < 0xA0;
        to[i] = control || control_pair ? ' ' : (char)text[i];
        if (control_pair) {
            to[++i] = ' ';
        }
    }
    to[length] = '\0';
}

bool text_to_uint(const char *text, uint32_t maximum, uint32_t *value) {
    uint64_t number = 0;
    if (*text == '\0') {
        return false;
    }
    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9') {
            return false;
        }
        number = number * 10 + (uint32_t)(*text - '0');
        if (number > maximum) {
            return false;
        }
    }
    *value = (uint32_t)number;
    return true;
}

char *text_next_word(char **cursor) {
    char *word = *cursor;
    while (*word == ' ' || *word == '\t') {
        word++;
    }
    if (*word == '\0') {
        *cursor = word;
        return NULL;
    }
    char *end = word;
    while (*end != '\0' && *end != ' ' && *end != '\t') {
        end++;
    }
    if (*end != '\0') {
        *end++ = '\0';
        while (*end == ' ' || *end == '\t') {
            end++;
        }
    }
    *cursor = end;
    return word;
}

void line_init(struct line_editor *line, char *buffer, size_t size) {
    *line = (struct line_editor){.buffer = buffer, .size = size};
    line_clear(line);
}

void line_clear(struct line_editor *line) {
    line->length = 0;
    line->buffer[0] = '\0';
}

static void emit_text(const char *text, line_emit_fn *emit, void *ctx) {
    for (; *text != '\0'; text++) {
        emit(ctx, *text);
    }
}

static bool is_continuation(char byte) {
    return ((uint8_t)byte & 0xC0u) == 0x80;
}

static void rub_out(struct line_editor *line, line_emit_fn *emit, void *ctx) {
    bool again = line->length > 0;
    while (again) {
        again = is_continuation(line->buffer[--line->length]) && line->length > 0;
    }
    line->buffer[line->length] = '\0';
    emit_text("\b \b", emit, ctx);
}

bool line_feed(struct line_editor *line, uint8_t byte, line_emit_fn *emit, void *ctx) {
    enum { BEL = 0x07, BACKSPACE = 0x08, CTRL_U = 0x15, DEL = 0x7F };
    const bool after_cr = line->after_cr;
    line->after_cr = byte == '\r';
    if (byte == '\r' || byte == '\n') {
        if (byte == '\n' && after_cr) {
            return false;
        }
        emit_text("\r\n", emit, ctx);
        return true;
    }
    if (byte == BACKSPACE || byte == DEL) {
        if (line->length > 0) {
            rub_out(line, emit, ctx);
        }
    } else if (byte == CTRL_U) {
        while (line->length > 0) {
            rub_out(line, emit, ctx);
        }
    } else if (byte >= 0x20) {
        if (line->length + 1 >= line->size) {
            emit(ctx, BEL);
        } else {
            line->buffer[line->length++] = (char)byte;
            line->buffer[line->length] = '\0';
            emit(ctx, (char)byte);
        }
    }
    return false;
}
