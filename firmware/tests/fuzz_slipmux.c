/* The receiver takes any bytes; a frame that it accepts is sent again as it was meant. */
#include "lib/slipmux.h"
#include "tests/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct wire {
    uint8_t bytes[2 * SLIPMUX_MAX_FRAME + 4];
    size_t length;
};

static void emit(void *ctx, uint8_t byte) {
    struct wire *wire = ctx;
    CHECK(wire->length < sizeof wire->bytes);
    wire->bytes[wire->length++] = byte;
}

static void check_round_trip(const struct slipmux_frame *frame) {
    static struct wire wire;
    static uint8_t buffer[SLIPMUX_MAX_FRAME];
    struct slipmux_receiver receiver;
    struct slipmux_frame again;
    int frames = 0;
    wire.length = 0;
    slipmux_send(frame->type, frame->data, frame->length, emit, &wire);
    slipmux_init(&receiver, buffer, sizeof buffer);
    for (size_t i = 0; i < wire.length; i++) {
        frames += slipmux_feed(&receiver, wire.bytes[i], &again);
    }
    CHECK(frames == 1 && again.type == frame->type && again.length == frame->length);
    CHECK(frame->length == 0 || memcmp(again.data, frame->data, frame->length) == 0);
}

static void receive(const uint8_t *data, size_t size, uint8_t *buffer, size_t buffer_size) {
    struct slipmux_receiver receiver;
    struct slipmux_frame frame;
    slipmux_init(&receiver, buffer, buffer_size);
    for (size_t i = 0; i < size; i++) {
        if (slipmux_feed(&receiver, data[i], &frame)) {
            CHECK(frame.data >= buffer && frame.data + frame.length <= buffer + buffer_size);
            check_round_trip(&frame);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    uint8_t *buffer = malloc(SLIPMUX_MAX_FRAME);
    CHECK(buffer != NULL);
    receive(data, size, buffer, SLIPMUX_MAX_FRAME);
    receive(data, size, buffer, size > 0 ? data[0] : 0);
    free(buffer);
    if (size <= SLIPMUX_MAX_MESSAGE) {
        uint8_t *copy = malloc(size + 1);
        CHECK(copy != NULL);
        memcpy(copy, data, size);
        check_round_trip(&(struct slipmux_frame){SLIPMUX_COAP, copy, size});
        free(copy);
    }
    return 0;
}
