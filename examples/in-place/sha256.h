/* SHA-256 as the decoder wants it. */
#pragma once

#include <stdint.h>

void sha256(uint8_t digest[32], const uint8_t *data, uint32_t length);
