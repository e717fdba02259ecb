#include <string.h>

char *strcpy(char *to, const char *from) {
    return memcpy(to, from, strlen(from) + 1);
}

size_t strspn(const char *text, const char *accepted) {
    size_t count = 0;
    while (text[count] != '\0' && strchr(accepted, text[count])) {
        count++;
    }
    return count;
}

size_t strcspn(const char *text, const char *rejected) {
    size_t count = 0;
    while (text[count] != '\0' && !strchr(rejected, text[count])) {
        count++;
    }
    return count;
}
