/* Strings of bits; see bits.h. The compiler makes these loops go many bytes at a time. */
#include "bits.h"

void bits_and(uint8_t *restrict out, const uint8_t *a, const uint8_t *b, size_t size) {
    for (size_t i = 0; i < size; i++) {
        out[i] = a[i] & b[i];
    }
}

void bits_or(uint8_t *restrict out, const uint8_t *a, const uint8_t *b, size_t size) {
    for (size_t i = 0; i < size; i++) {
        out[i] = a[i] | b[i];
    }
}

void bits_not(uint8_t *restrict out, const uint8_t *a, size_t size) {
    for (size_t i = 0; i < size; i++) {
        out[i] = (uint8_t)~a[i];
    }
}
