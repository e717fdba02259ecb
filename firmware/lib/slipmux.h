/* slipmux (draft-bormann-t2trg-slipmux-03): CoAP messages and diagnostics over a byte stream. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum slipmux_type { SLIPMUX_DIAGNOSTICS = 0x0A, SLIPMUX_COAP = 0xA9 };

/* The longest frame between two ENDs after unescaping, in bytes: type, message and FCS. */
#define SLIPMUX_MAX_FRAME 1280u
/* The longest message that fits. */
#define SLIPMUX_MAX_MESSAGE (SLIPMUX_MAX_FRAME - 3u)

struct slipmux_frame {
    enum slipmux_type type;
    uint8_t *data; /* without type byte and FCS */
    size_t length;
};

struct slipmux_receiver {
    uint8_t *buffer;
    size_t size;
    size_t length;
    bool escaped;
    bool spoiled; /* the rest of this frame is ignored */
    uint32_t
        dropped; /* frames that were too long, of unknown type, ill-escaped or had a wrong FCS */
};

/* `buffer` holds one frame; SLIPMUX_MAX_FRAME bytes are enough, a smaller one receives less. */
void slipmux_init(struct slipmux_receiver *receiver, uint8_t *buffer, size_t size);

/* Take one byte. True when it completed a good frame; `frame` points into the receiver's buffer and
 * is valid until the next call. */
bool slipmux_feed(struct slipmux_receiver *receiver, uint8_t byte, struct slipmux_frame *frame);

typedef void slipmux_emit_fn(void *ctx, uint8_t byte);

/* Send one frame: both ENDs, type, escaped data and, for CoAP, the FCS. */
void slipmux_send(enum slipmux_type type, const void *data, size_t length, slipmux_emit_fn *emit,
                  void *ctx);
