/* Generated constant data that makes an image larger; none in the releases themselves. */
#pragma once

#include <stdint.h>

/* The data and its size in bytes; NULL and 0 when there is none. */
const uint8_t *resource_data(void);
uint32_t resource_size(void);
