#include "lib/slipmux.h"

#include "lib/assert.h"
#include "lib/crc.h"

enum { END = 0xC0, ESC = 0xDB, ESC_END = 0xDC, ESC_ESC = 0xDD, FCS_SIZE = 2 };

void slipmux_init(struct slipmux_receiver *receiver, uint8_t *buffer, size_t size) {
    ASSERT(buffer != NULL);
    *receiver = (struct slipmux_receiver){
        .buffer = buffer,
        .size = size < SLIPMUX_MAX_FRAME ? size : SLIPMUX_MAX_FRAME,
    };
}

static bool check_frame(const struct slipmux_receiver *receiver, struct slipmux_frame *frame) {
    ASSERT(receiver->length > 0);
    ASSERT(receiver->length <= receiver->size);
    uint8_t *const data = receiver->buffer;
    const size_t length = receiver->length;
    if (data[0] == SLIPMUX_DIAGNOSTICS) {
        *frame = (struct slipmux_frame){SLIPMUX_DIAGNOSTICS, data + 1, length - 1};
        return true;
    }
    if (data[0] != SLIPMUX_COAP || length < 1 + FCS_SIZE) {
        return false;
    }
    const uint16_t fcs = crc16_x25(data, length - FCS_SIZE);
    if (data[length - 2] != (fcs & 0xFFu) || data[length - 1] != fcs >> 8) {
        return false;
    }
    *frame = (struct slipmux_frame){SLIPMUX_COAP, data + 1, length - 1 - FCS_SIZE};
    return true;
}

bool slipmux_feed(struct slipmux_receiver *receiver, uint8_t byte, struct slipmux_frame *frame) {
    ASSERT(receiver->buffer != NULL);
    ASSERT(receiver->length <= receiver->size);
    if (byte == END) {
        const bool empty = receiver->length == 0 && !receiver->spoiled && !receiver->escaped;
        const bool good =
            !empty && !receiver->spoiled && !receiver->escaped && check_frame(receiver, frame);
        if (!empty && !good) {
            receiver->dropped++;
        }
        receiver->length = 0;
        receiver->spoiled = false;
        receiver->escaped = false;
        return good;
    }
    if (receiver->spoiled) {
        return false;
    }
    if (receiver->escaped) {
        receiver->escaped = false;
        if (byte != ESC_END && byte != ESC_ESC) {
            receiver->spoiled = true;
            return false;
        }
        byte = byte == ESC_END ? END : ESC;
    } else if (byte == ESC) {
        receiver->escaped = true;
        return false;
    }
    if (receiver->length == receiver->size) {
        receiver->spoiled = true;
        return false;
    }
    receiver->buffer[receiver->length++] = byte;
    return false;
}

static void emit_escaped(uint8_t byte, slipmux_emit_fn *emit, void *ctx) {
    if (byte == END || byte == ESC) {
        emit(ctx, ESC);
        byte = byte == END ? ESC_END : ESC_ESC;
    }
    emit(ctx, byte);
}

void slipmux_send(enum slipmux_type type, const void *data, size_t length, slipmux_emit_fn *emit,
                  void *ctx) {
    ASSERT(type == SLIPMUX_DIAGNOSTICS || type == SLIPMUX_COAP);
    ASSERT(data != NULL || length == 0);
    const uint8_t *bytes = data;
    uint16_t crc = crc16_x25_update(CRC16_X25_INIT, (uint8_t)type);
    emit(ctx, END);
    emit_escaped((uint8_t)type, emit, ctx);
    for (size_t i = 0; i < length; i++) {
        crc = crc16_x25_update(crc, bytes[i]);
        emit_escaped(bytes[i], emit, ctx);
    }
    if (type == SLIPMUX_COAP) {
        const uint16_t fcs = crc ^ 0xFFFFu;
        emit_escaped(fcs & 0xFFu, emit, ctx);
        emit_escaped((uint8_t)(fcs >> 8), emit, ctx);
    }
    emit(ctx, END);
}
