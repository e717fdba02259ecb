/* The three checksums of the protocols and of what is kept in the NOR. None of them protects
 * against a person: that is what signatures are for. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* FCS of RFC 1662 appendix C.2 (CRC-16/X-25; "123456789" gives 0x906E). */
uint16_t crc16_x25(const void *data, size_t length);

/* The same byte by byte: begin with CRC16_X25_INIT, the FCS is the complement of the end. */
#define CRC16_X25_INIT 0xFFFFu
uint16_t crc16_x25_update(uint16_t state, uint8_t byte);

/* CRC of XMODEM-CRC and YMODEM ("123456789" gives 0x31C3). */
uint16_t crc16_xmodem(const void *data, size_t length);

/* CRC-32 of IEEE 802.3 ("123456789" gives 0xCBF43926). `before` is 0 or the CRC of what came
 * before `data`, so that crc32(crc32(0, a), b) is the CRC of a and b together. */
uint32_t crc32(uint32_t before, const void *data, size_t length);
