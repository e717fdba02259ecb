/* Text from outside: UTF-8, numbers, words, and the line that a person types. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Well-formed UTF-8 (RFC 3629: shortest form, no surrogates, up to U+10FFFF). */
bool text_is_utf8(const void *data, size_t length);

/* Well-formed UTF-8 without control characters (C0, DEL, C1): safe to show on a console. */
bool text_is_printable(const void *data, size_t length);

/* Copies UTF-8 so that it is safe to show: control characters become blanks, they would be commands
 * to the user's terminal program. `to` has room for `length` bytes and a NUL. */
void text_copy_shown(char *to, const uint8_t *text, size_t length);

/* A whole string of decimal digits, at most `maximum`. */
bool text_to_uint(const char *text, uint32_t maximum, uint32_t *value);

/* The next word of a line (separated by blanks), cut out in place; NULL at the end. `cursor` moves
 * behind it, to the begin of the next word. */
char *text_next_word(char **cursor);

/* A line that is typed. `buffer` holds what was typed so far, always terminated. */
struct line_editor {
    char *buffer;
    size_t size;
    size_t length;
    bool after_cr; /* an LF now belongs to the CR before it */
};

typedef void line_emit_fn(void *ctx, char character);

void line_init(struct line_editor *line, char *buffer, size_t size);

/* Take one byte; echo goes to `emit`. Backspace and DEL take the last character away (a whole one
 * of UTF-8), Ctrl-U all; other control characters are ignored, what does not fit is answered by
 * BEL. True when the line is complete (CR, LF or CR LF; CR LF was echoed): read `buffer`, then call
 * line_clear. */
bool line_feed(struct line_editor *line, uint8_t byte, line_emit_fn *emit, void *ctx);
void line_clear(struct line_editor *line);
