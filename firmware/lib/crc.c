#include "lib/crc.h"

/* Half a byte at a time: small tables that still keep up with the links. */

uint16_t crc16_x25_update(uint16_t state, uint8_t byte) {
    static const uint16_t table[16] = {
        0x0000, 0x1081, 0x2102, 0x3183, 0x4204, 0x5285, 0x6306, 0x7387,
        0x8408, 0x9489, 0xA50A, 0xB58B, 0xC60C, 0xD68D, 0xE70E, 0xF78F,
    };
    uint32_t crc = state ^ (uint32_t)byte;
    crc = (crc >> 4) ^ table[crc & 15u];
    crc = (crc >> 4) ^ table[crc & 15u];
    return (uint16_t)crc;
}

uint16_t crc16_x25(const void *data, size_t length) {
    const uint8_t *bytes = data;
    uint16_t crc = CRC16_X25_INIT;
    for (size_t i = 0; i < length; i++) {
        crc = crc16_x25_update(crc, bytes[i]);
    }
    return crc ^ 0xFFFFu;
}

uint16_t crc16_xmodem(const void *data, size_t length) {
    static const uint16_t table[16] = {
        0x0000, 0x1021, 0x2042, 0x3063, 0x4084, 0x50A5, 0x60C6, 0x70E7,
        0x8108, 0x9129, 0xA14A, 0xB16B, 0xC18C, 0xD1AD, 0xE1CE, 0xF1EF,
    };
    const uint8_t *bytes = data;
    uint32_t crc = 0;
    for (size_t i = 0; i < length; i++) {
        crc = (crc << 4) ^ table[((crc >> 12) ^ (bytes[i] >> 4)) & 15u];
        crc = (crc << 4) ^ table[((crc >> 12) ^ bytes[i]) & 15u];
    }
    return (uint16_t)crc;
}

uint32_t crc32(uint32_t before, const void *data, size_t length) {
    static const uint32_t table[16] = {
        0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4,
        0x4DB26158, 0x5005713C, 0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C,
        0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C,
    };
    const uint8_t *bytes = data;
    uint32_t crc = ~before;
    for (size_t i = 0; i < length; i++) {
        crc ^= bytes[i];
        crc = (crc >> 4) ^ table[crc & 15u];
        crc = (crc >> 4) ^ table[crc & 15u];
    }
    return ~crc;
}
