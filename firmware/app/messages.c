#include "messages.h"

#include <stdbool.h>
#include <string.h>

#include "console.h"

static char texts[MESSAGES_KEPT][MESSAGE_MAX + 1];
static size_t count;

void messages_receive(const uint8_t *text, size_t length) {
    if (length > MESSAGE_MAX) {
        return;
    }
    if (count == MESSAGES_KEPT) {
        memmove(texts[0], texts[1], sizeof texts - sizeof texts[0]);
        count--;
    }
    char *kept = texts[count++];
    for (size_t i = 0; i < length; i++) {
        bool control = text[i] < 0x20 || text[i] == 0x7F;
        /* U+0080 to U+009F: 0xC2 and a byte below 0xA0. */
        bool control_pair = text[i] == 0xC2 && i + 1 < length && text[i + 1] < 0xA0;
        kept[i] = control || control_pair ? ' ' : (char)text[i];
        if (control_pair) {
            kept[++i] = ' ';
        }
    }
    kept[length] = '\0';
    console_say("message: %s", kept);
}

const char *messages_get(size_t index) {
    return index < count ? texts[index] : NULL;
}
