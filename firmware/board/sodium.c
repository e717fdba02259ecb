/* What libsodium's hash, signature and cipher code expects of the rest of libsodium. */
#include <sodium/core.h>
#include <sodium/utils.h>
#include <stdlib.h>

void sodium_memzero(void *const data, const size_t length) {
    volatile unsigned char *bytes = data;
    for (size_t i = 0; i < length; i++) {
        bytes[i] = 0;
    }
}

/* 0 when equal, else -1; takes as long wherever the difference is. */
int sodium_memcmp(const void *const a, const void *const b, size_t length) {
    const volatile unsigned char *x = a;
    const volatile unsigned char *y = b;
    unsigned char difference = 0;
    for (size_t i = 0; i < length; i++) {
        difference |= x[i] ^ y[i];
    }
    return difference == 0 ? 0 : -1;
}

/* 1 when all bytes are zero, else 0; takes as long wherever the first other one is. */
int sodium_is_zero(const unsigned char *data, const size_t length) {
    const volatile unsigned char *bytes = data;
    unsigned char any = 0;
    for (size_t i = 0; i < length; i++) {
        any |= bytes[i];
    }
    return any == 0;
}

/* A function was called with a length that it has no number for: a mistake of ours. */
void sodium_misuse(void) {
    abort();
}

_Noreturn void abort(void) {
    __builtin_trap(); /* system_exception says where */
}
