/* Strings of bits, combined bit by bit. Each has `size` bytes, and `out` overlaps none of them. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#pragma GCC visibility push(default)

void bits_and(uint8_t *out, const uint8_t *a, const uint8_t *b, size_t size);
void bits_or(uint8_t *out, const uint8_t *a, const uint8_t *b, size_t size);
void bits_not(uint8_t *out, const uint8_t *a, size_t size);

#pragma GCC visibility pop
