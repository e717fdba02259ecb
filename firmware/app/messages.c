#include "app/messages.h"

#include <string.h>

#include "app/prompt.h"
#include "lib/text.h"

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
    text_copy_shown(kept, text, length);
    console_say("message: %s", kept);
}

const char *messages_get(size_t index) {
    return index < count ? texts[index] : NULL;
}
