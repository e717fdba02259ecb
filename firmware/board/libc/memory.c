/* The functions of <string.h>, and those that the compiler calls by itself (Arm IHI 0043, run-time
 * ABI). Compiled with -fno-builtin, or the loops would become calls of themselves. */
#include <stdint.h>
#include <string.h>

static int aligned(const void *a, const void *b) {
    return (((uintptr_t)a | (uintptr_t)b) & 3u) == 0;
}

void *memcpy(void *restrict to, const void *restrict from, size_t length) {
    unsigned char *t = to;
    const unsigned char *f = from;
    if (aligned(t, f)) {
        for (; length >= 4; length -= 4, t += 4, f += 4) {
            *(uint32_t *)(void *)t = *(const uint32_t *)(const void *)f;
        }
    }
    while (length-- > 0) {
        *t++ = *f++;
    }
    return to;
}

void *memmove(void *to, const void *from, size_t length) {
    unsigned char *t = to;
    const unsigned char *f = from;
    if (t <= f) {
        while (length-- > 0) {
            *t++ = *f++;
        }
    } else {
        while (length-- > 0) {
            t[length] = f[length];
        }
    }
    return to;
}

void *memset(void *to, int value, size_t length) {
    unsigned char *t = to;
    const unsigned char byte = (unsigned char)value;
    for (; length > 0 && !aligned(t, t); length--) {
        *t++ = byte;
    }
    for (; length >= 4; length -= 4, t += 4) {
        *(uint32_t *)(void *)t = byte * 0x01010101u;
    }
    while (length-- > 0) {
        *t++ = byte;
    }
    return to;
}

int memcmp(const void *a, const void *b, size_t length) {
    const unsigned char *x = a;
    const unsigned char *y = b;
    if (aligned(x, y)) {
        while (length >= 4 &&
               *(const uint32_t *)(const void *)x == *(const uint32_t *)(const void *)y) {
            length -= 4;
            x += 4;
            y += 4;
        }
    }
    for (; length > 0; length--, x++, y++) {
        if (*x != *y) {
            return *x - *y;
        }
    }
    return 0;
}

void *memchr(const void *data, int value, size_t length) {
    const unsigned char *d = data;
    for (; length > 0; length--, d++) {
        if (*d == (unsigned char)value) {
            return (void *)(uintptr_t)d;
        }
    }
    return NULL;
}

size_t strlen(const char *text) {
    size_t length = 0;
    while (text[length] != '\0') {
        length++;
    }
    return length;
}

int strncmp(const char *a, const char *b, size_t length) {
    for (; length > 0; length--, a++, b++) {
        if (*a != *b || *a == '\0') {
            return (unsigned char)*a - (unsigned char)*b;
        }
    }
    return 0;
}

int strcmp(const char *a, const char *b) {
    return strncmp(a, b, SIZE_MAX);
}

char *strchr(const char *text, int character) {
    for (; *text != (char)character; text++) {
        if (*text == '\0') {
            return NULL;
        }
    }
    return (char *)(uintptr_t)text;
}
