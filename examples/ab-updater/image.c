#include "image.h"

bool image_is_whole(uint32_t slot) {
    const struct header *const header = header_of(slot);
    if (header->magic != IMAGE_MAGIC || header->size > MARKS) {
        return false;
    }
    const uint8_t *const bytes = (const uint8_t *)(uintptr_t)slot;
    uint32_t crc = 0xFFFFFFFFu;
    for (uint32_t i = 0; i < header->size; i++) {
        crc ^= i - CRC_OFFSET < 4 ? 0 : bytes[i];
        for (unsigned bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (0xEDB88320u & -(crc & 1));
        }
    }
    return ~crc == header->crc;
}
