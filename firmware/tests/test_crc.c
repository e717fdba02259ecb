#include "lib/crc.h"
#include "lib/result.h"
#include "tests/check.h"

int main(void) {
    CHECK_EQUAL(crc16_x25("123456789", 9), 0x906E);
    CHECK_EQUAL(crc16_xmodem("123456789", 9), 0x31C3);
    CHECK_EQUAL(crc32(0, "123456789", 9), 0xCBF43926);
    CHECK_EQUAL(crc32(crc32(0, "1234", 4), "56789", 5), 0xCBF43926);
    CHECK_EQUAL(crc16_x25("", 0), 0);
    CHECK_EQUAL(crc16_xmodem("", 0), 0);
    CHECK_EQUAL(crc32(0, "", 0), 0);
    uint16_t state = CRC16_X25_INIT;
    for (const char *c = "123456789"; *c != '\0'; c++) {
        state = crc16_x25_update(state, (uint8_t)*c);
    }
    CHECK_EQUAL((uint16_t)~state, 0x906E);

    CHECK_TEXT(result_text(-1), "unknown result");
    CHECK_TEXT(result_text(RESULT_COUNT), "unknown result");
    return 0;
}
