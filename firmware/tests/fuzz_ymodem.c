/* The input is a script: good packets, broken ones, single bytes, silence. Whatever happens, the
 * data stays inside the limit and in order, and the receiver ends or goes on asking. */
#include "lib/crc.h"
#include "lib/ymodem.h"
#include "tests/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define LIMIT 3000u

struct sink {
    const struct ymodem *ymodem;
    uint32_t stored;
    uint32_t bound;
    bool begun;
};

static void on_send(void *ctx, const uint8_t *data, size_t length) {
    (void)ctx;
    (void)data;
    CHECK(length > 0);
}

static int on_begin(void *ctx, const char *name, bool size_known, uint32_t size) {
    struct sink *sink = ctx;
    CHECK(!sink->begun && strlen(name) < YMODEM_NAME_SIZE);
    CHECK(size <= LIMIT && (size_known || size == 0));
    sink->begun = true;
    sink->bound = size_known ? size : LIMIT;
    return 0;
}

static int on_data(void *ctx, uint32_t offset, const uint8_t *data, size_t length) {
    struct sink *sink = ctx;
    (void)data;
    CHECK(sink->begun && offset == sink->stored && length > 0);
    CHECK(length <= sink->bound - sink->stored);
    sink->stored += (uint32_t)length;
    return 0;
}

/* A packet with a right CRC, its data from the input. Returns how much of that was used. */
static size_t send_packet(struct ymodem *ymodem, uint8_t number, bool large, const uint8_t *data,
                          size_t size, uint64_t now) {
    uint8_t packet[1029] = {0};
    const size_t room = large ? 1024 : 128;
    const size_t used = size < room ? size : room;
    packet[0] = large ? 0x02 : 0x01;
    packet[1] = number;
    packet[2] = (uint8_t)~number;
    memcpy(packet + 3, data, used);
    const uint16_t crc = crc16_xmodem(packet + 3, room);
    packet[3 + room] = (uint8_t)(crc >> 8);
    packet[4 + room] = (uint8_t)crc;
    ymodem_feed(ymodem, packet, room + 5, now);
    return used < 32 ? used : 32;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct ymodem ymodem;
    struct sink sink = {&ymodem, 0, 0, false};
    const struct ymodem_callbacks callbacks = {on_send, on_begin, on_data, &sink};
    uint64_t now = 0;
    ymodem_start(&ymodem, &callbacks, LIMIT, now);
    while (size > 0) {
        const uint8_t operation = *data++;
        size--;
        if (operation < 0x40) { /* the next packet, or with bit 5 another one */
            const uint8_t number = (uint8_t)(ymodem.expected + (operation & 0x20 ? operation : 0));
            const size_t used = send_packet(&ymodem, number, (operation & 1) != 0, data, size, now);
            data += used;
            size -= used;
        } else if (operation < 0x60) {
            now += (uint64_t)operation * 20000;
        } else if (operation < 0x70) {
            const uint8_t control[] = {0x04, 0x18, 0x01, 0x02};
            ymodem_feed(&ymodem, &control[operation & 3], 1, now);
        } else {
            ymodem_feed(&ymodem, &operation, 1, now);
        }
        const uint64_t next = ymodem_poll(&ymodem, now);
        CHECK((next == YMODEM_NEVER) == (ymodem.status != YMODEM_RECEIVING));
        CHECK(next > now);
        CHECK(ymodem.received == sink.stored);
    }
    if (ymodem.status == YMODEM_DONE) {
        CHECK(sink.begun && (!ymodem.size_known || sink.stored == ymodem.size));
    }
    return 0;
}
