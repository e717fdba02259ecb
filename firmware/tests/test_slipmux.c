#include "lib/slipmux.h"
#include "tests/check.h"

static uint8_t wire[4 * SLIPMUX_MAX_FRAME];
static size_t wire_length;

static void emit(void *ctx, uint8_t byte) {
    (void)ctx;
    CHECK(wire_length < sizeof wire);
    wire[wire_length++] = byte;
}

static uint8_t buffer[SLIPMUX_MAX_FRAME];
static struct slipmux_receiver receiver;
static struct slipmux_frame frame;

static void start(void) {
    wire_length = 0;
    slipmux_init(&receiver, buffer, sizeof buffer);
}

/* Feeds what is on the wire; returns how many good frames came, `frame` is the last. */
static int feed(const void *data, size_t length) {
    const uint8_t *bytes = data;
    int frames = 0;
    for (size_t i = 0; i < length; i++) {
        frames += slipmux_feed(&receiver, bytes[i], &frame);
    }
    return frames;
}

static void test_known_frames(void) {
    start();
    /* An empty CoAP message, CON, message ID 0xC0DB: both special bytes are escaped. */
    slipmux_send(SLIPMUX_COAP, "\x40\x00\xC0\xDB", 4, emit, NULL);
    static const uint8_t begin[] = {0xC0, 0xA9, 0x40, 0x00, 0xDB, 0xDC, 0xDB, 0xDD};
    CHECK(memcmp(wire, begin, sizeof begin) == 0);
    CHECK_EQUAL(feed(wire, wire_length), 1);
    CHECK_EQUAL(frame.type, SLIPMUX_COAP);
    CHECK_EQUAL(frame.length, 4);
    CHECK(memcmp(frame.data, "\x40\x00\xC0\xDB", 4) == 0);

    start();
    slipmux_send(SLIPMUX_DIAGNOSTICS, "hi", 2, emit, NULL);
    CHECK_EQUAL(wire_length, 5);
    CHECK(memcmp(wire, "\xC0\nhi\xC0", 5) == 0);
    CHECK_EQUAL(feed(wire, wire_length), 1);
    CHECK_EQUAL(frame.type, SLIPMUX_DIAGNOSTICS);
    CHECK_EQUAL(frame.length, 2);
    CHECK_EQUAL(receiver.dropped, 0);
}

static void test_every_corrupted_bit_is_found(void) {
    uint8_t message[24];
    for (size_t i = 0; i < sizeof message; i++) {
        message[i] = (uint8_t)(i * 37);
    }
    start();
    slipmux_send(SLIPMUX_COAP, message, sizeof message, emit, NULL);
    const size_t length = wire_length;
    for (size_t bit = 0; bit < length * 8; bit++) {
        slipmux_init(&receiver, buffer, sizeof buffer);
        wire[bit / 8] ^= (uint8_t)(1u << bit % 8);
        const int frames = feed(wire, length);
        /* A broken first END leaves noise in front; a broken last one no end. Type 0x0A is as good
         * as any, but one bit does not make it of 0xA9. */
        CHECK_EQUAL(frames, 0);
        wire[bit / 8] ^= (uint8_t)(1u << bit % 8);
        CHECK_EQUAL(feed("\xC0", 1), 0);
        CHECK_EQUAL(feed(wire, length), 1); /* and the next frame is received */
    }
}

static void test_drops(void) {
    start();
    CHECK_EQUAL(feed("\xC0\xC0\xC0", 3), 0);
    CHECK_EQUAL(receiver.dropped, 0);
    CHECK_EQUAL(feed("\x45\x01\xC0", 3), 0); /* unknown type */
    CHECK_EQUAL(receiver.dropped, 1);
    CHECK_EQUAL(feed("\nab\xDB\xC0", 5), 0); /* escape at the end */
    CHECK_EQUAL(receiver.dropped, 2);
    CHECK_EQUAL(feed("\nab\xDB\x01\xC0", 6), 0); /* no such escape */
    CHECK_EQUAL(receiver.dropped, 3);
    CHECK_EQUAL(feed("\xA9\x00\xC0", 3), 0); /* no room for an FCS */
    CHECK_EQUAL(receiver.dropped, 4);
    CHECK_EQUAL(feed("\xDB\xC0", 2), 0);
    CHECK_EQUAL(receiver.dropped, 5);
    CHECK_EQUAL(feed("\n\xC0", 2), 1); /* an empty text is one */
}

static void test_bounds(void) {
    static uint8_t message[SLIPMUX_MAX_MESSAGE + 1];
    memset(message, 0xC0, sizeof message);
    start();
    slipmux_send(SLIPMUX_COAP, message, SLIPMUX_MAX_MESSAGE, emit, NULL);
    CHECK_EQUAL(feed(wire, wire_length), 1);
    CHECK_EQUAL(frame.length, SLIPMUX_MAX_MESSAGE);
    wire_length = 0;
    slipmux_send(SLIPMUX_COAP, message, SLIPMUX_MAX_MESSAGE + 1, emit, NULL);
    CHECK_EQUAL(feed(wire, wire_length), 0);
    CHECK_EQUAL(receiver.dropped, 1);

    /* A larger buffer does not make the limit larger, a smaller one makes it smaller. */
    static uint8_t large[2 * SLIPMUX_MAX_FRAME];
    slipmux_init(&receiver, large, sizeof large);
    CHECK_EQUAL(feed(wire, wire_length), 0);
    slipmux_init(&receiver, large, 4);
    CHECK_EQUAL(feed("\nabc\xC0", 5), 1);
    CHECK_EQUAL(feed("\nabcd\xC0", 6), 0);
    slipmux_init(&receiver, large, 0);
    CHECK_EQUAL(feed("\n\xC0", 2), 0);
}

int main(void) {
    test_known_frames();
    test_every_corrupted_bit_is_found();
    test_drops();
    test_bounds();
    return 0;
}
