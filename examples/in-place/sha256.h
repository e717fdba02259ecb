/* SHA-256 (FIPS 180-4), small rather than fast. */
#pragma once

#include <stdint.h>

void sha256(uint8_t digest[32], const uint8_t *data, uint32_t length);
