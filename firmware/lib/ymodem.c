#include "lib/ymodem.h"

#include <string.h>

#include "lib/assert.h"
#include "lib/crc.h"

enum {
    SOH = 0x01, /* a packet of 128 bytes */
    STX = 0x02, /* a packet of 1,024 bytes */
    EOT = 0x04,
    ACK = 0x06,
    NAK = 0x15,
    CAN = 0x18,
    ASK = 'C',
};

#define PACKET_HEADER 3u
#define PACKET_CRC 2u
#define MAX_ERRORS 10u        /* in a row */
#define MAX_ASKS_AT_END 3u    /* for the packet that ends the batch */
#define ASK_INTERVAL 1000000u /* microseconds, like the rest */
#define PACKET_TIMEOUT 5000000u
#define BYTE_TIMEOUT 1000000u
#define QUIET_TIME                                                                                 \
    200000u /* the line is silent for so long before something is asked for again                  \
             */

enum phase {
    WAIT_HEADER, /* for the packet with name and size */
    WAIT_DATA,
    WAIT_END, /* for the packet that ends the batch */
};

static void reply(const struct ymodem *ymodem, const char *bytes, size_t length) {
    ymodem->callbacks->send(ymodem->callbacks->ctx, (const uint8_t *)bytes, length);
}

static void reply_byte(const struct ymodem *ymodem, int byte) {
    const char text = (char)byte;
    reply(ymodem, &text, 1);
}

static void end(struct ymodem *ymodem, enum ymodem_status status) {
    ymodem->status = status;
    if (status != YMODEM_DONE && status != YMODEM_NO_FILE && status != YMODEM_CANCELLED) {
        reply(ymodem, "\x18\x18\x18\x18\x18", 5);
    }
}

static void expect_packet(struct ymodem *ymodem, uint64_t now, uint32_t timeout) {
    ymodem->filled = 0;
    ymodem->wanted = 0;
    ymodem->purging = false;
    ymodem->deadline = now + timeout;
}

/* Whether the sender is to be asked by 'C': where it waits to be told that CRCs are wanted. */
static bool asking(const struct ymodem *ymodem) {
    return ymodem->phase != WAIT_DATA || !ymodem->any_data;
}

static void ask(struct ymodem *ymodem, uint64_t now) {
    expect_packet(ymodem, now, asking(ymodem) ? ASK_INTERVAL : PACKET_TIMEOUT);
    reply_byte(ymodem, asking(ymodem) ? ASK : NAK);
}

void ymodem_start(struct ymodem *ymodem, const struct ymodem_callbacks *callbacks, uint32_t limit,
                  uint64_t now) {
    ASSERT(callbacks->send != NULL);
    ASSERT(callbacks->data != NULL);
    memset(ymodem, 0, sizeof *ymodem);
    ymodem->callbacks = callbacks;
    ymodem->limit = limit;
    ymodem->phase = WAIT_HEADER;
    ask(ymodem, now);
}

void ymodem_abort(struct ymodem *ymodem) {
    if (ymodem->status == YMODEM_RECEIVING) {
        end(ymodem, YMODEM_REFUSED);
    }
}

/* Something was wrong: wait until the line is quiet, then ask again. */
static void purge(struct ymodem *ymodem, uint64_t now) {
    expect_packet(ymodem, now, QUIET_TIME);
    ymodem->purging = true;
}

/* The decimal size that follows the name (YMODEM §5.1); false when it is none or too long. */
static bool parse_size(struct ymodem *ymodem, const uint8_t *text, size_t length) {
    uint64_t size = 0;
    size_t digits = 0;
    for (; digits < length && text[digits] >= '0' && text[digits] <= '9'; digits++) {
        size = size * 10 + (uint32_t)(text[digits] - '0');
        if (size > UINT32_MAX) {
            size = UINT32_MAX; /* larger than any limit, and no overflow */
        }
    }
    if (digits < length && text[digits] != ' ' && text[digits] != '\0') {
        return false;
    }
    ymodem->size_known = digits > 0;
    ymodem->size = (uint32_t)size;
    return true;
}

static void take_name(struct ymodem *ymodem, const uint8_t *name, size_t length) {
    if (length >= sizeof ymodem->name) {
        length = sizeof ymodem->name - 1;
    }
    for (size_t i = 0; i < length; i++) {
        ymodem->name[i] = name[i] >= 0x20 && name[i] < 0x7F ? (char)name[i] : '?';
    }
    ymodem->name[length] = '\0';
}

static void take_header(struct ymodem *ymodem, const uint8_t *data, size_t length, uint64_t now) {
    if (data[0] == '\0') {
        reply_byte(ymodem, ACK);
        end(ymodem, ymodem->phase == WAIT_END ? YMODEM_DONE : YMODEM_NO_FILE);
        return;
    }
    if (ymodem->phase == WAIT_END) {
        end(ymodem, YMODEM_MORE_FILES);
        return;
    }
    const uint8_t *name_end = memchr(data, '\0', length);
    const size_t name_length = name_end != NULL ? (size_t)(name_end - data) : length;
    const size_t rest = name_end != NULL ? length - name_length - 1 : 0;
    if (name_end == NULL || !parse_size(ymodem, name_end + 1, rest)) {
        end(ymodem, YMODEM_BAD_HEADER);
        return;
    }
    take_name(ymodem, data, name_length);
    if (ymodem->size > ymodem->limit) {
        end(ymodem, YMODEM_TOO_LARGE);
        return;
    }
    const struct ymodem_callbacks *callbacks = ymodem->callbacks;
    if (callbacks->begin != NULL &&
        callbacks->begin(callbacks->ctx, ymodem->name, ymodem->size_known, ymodem->size) != 0) {
        end(ymodem, YMODEM_REFUSED);
        return;
    }
    ymodem->phase = WAIT_DATA;
    ymodem->expected = 1;
    reply_byte(ymodem, ACK);
    ask(ymodem, now);
}

static void take_data(struct ymodem *ymodem, const uint8_t *data, size_t length, uint64_t now) {
    const uint32_t bound = ymodem->size_known ? ymodem->size : ymodem->limit;
    ASSERT(ymodem->phase == WAIT_DATA);
    ASSERT(ymodem->received <= bound && bound <= ymodem->limit);
    const uint32_t room = bound - ymodem->received;
    if (length > room) {
        if (!ymodem->size_known) {
            end(ymodem, YMODEM_TOO_LARGE);
            return;
        }
        length = room; /* the padding of the last packet */
    }
    const struct ymodem_callbacks *callbacks = ymodem->callbacks;
    if (length > 0 && callbacks->data(callbacks->ctx, ymodem->received, data, length) != 0) {
        end(ymodem, YMODEM_REFUSED);
        return;
    }
    ymodem->received += (uint32_t)length;
    ymodem->any_data = true;
    ymodem->expected++;
    reply_byte(ymodem, ACK);
    expect_packet(ymodem, now, PACKET_TIMEOUT);
}

static void take_packet(struct ymodem *ymodem, uint64_t now) {
    ASSERT(ymodem->filled == ymodem->wanted);
    ASSERT(ymodem->wanted <= sizeof ymodem->packet);
    const uint8_t *data = ymodem->packet + PACKET_HEADER;
    const size_t length = ymodem->wanted - PACKET_HEADER - PACKET_CRC;
    const uint8_t number = ymodem->packet[1];
    const uint8_t inverse = ymodem->packet[2];
    const uint16_t crc = crc16_xmodem(data, length);
    if ((number ^ inverse) != 0xFF || data[length] != crc >> 8 ||
        data[length + 1] != (crc & 0xFFu)) {
        purge(ymodem, now);
        return;
    }
    ymodem->errors = 0;
    ymodem->eot_seen = false;
    if (ymodem->phase != WAIT_DATA) {
        if (number == 0) {
            take_header(ymodem, data, length, now);
        } else if (ymodem->phase == WAIT_HEADER && number == 1) {
            end(ymodem, YMODEM_NO_HEADER);
        } else {
            end(ymodem, YMODEM_OUT_OF_STEP);
        }
    } else if (number == ymodem->expected) {
        take_data(ymodem, data, length, now);
    } else if (number == (uint8_t)(ymodem->expected - 1)) {
        /* It was received, but the ACK was lost. */
        reply_byte(ymodem, ACK);
        if (ymodem->any_data) {
            expect_packet(ymodem, now, PACKET_TIMEOUT);
        } else {
            ask(ymodem, now);
        }
    } else {
        end(ymodem, YMODEM_OUT_OF_STEP);
    }
}

/* The first EOT is answered by NAK: a line error can look like one, but not twice. */
static void take_eot(struct ymodem *ymodem, uint64_t now) {
    if (ymodem->phase == WAIT_HEADER) {
        purge(ymodem, now);
        return;
    }
    if (ymodem->phase == WAIT_DATA) {
        if (!ymodem->eot_seen) {
            ymodem->eot_seen = true;
            reply_byte(ymodem, NAK);
            expect_packet(ymodem, now, PACKET_TIMEOUT);
            return;
        }
        if (ymodem->size_known && ymodem->received < ymodem->size) {
            end(ymodem, YMODEM_SHORT);
            return;
        }
        ymodem->phase = WAIT_END;
    }
    ymodem->errors = 0;
    reply_byte(ymodem, ACK);
    ask(ymodem, now);
}

static void take_first_byte(struct ymodem *ymodem, uint8_t byte, uint64_t now) {
    const bool second_can = byte == CAN && ymodem->can_seen;
    ymodem->can_seen = byte == CAN;
    switch (byte) {
    case SOH:
    case STX:
        ymodem->packet[0] = byte;
        ymodem->filled = 1;
        ymodem->wanted = (byte == SOH ? 128u : 1024u) + PACKET_HEADER + PACKET_CRC;
        ymodem->deadline = now + BYTE_TIMEOUT;
        break;
    case EOT:
        take_eot(ymodem, now);
        break;
    case CAN:
        if (second_can) {
            end(ymodem, YMODEM_CANCELLED);
        }
        break;
    default:
        purge(ymodem, now);
        break;
    }
}

static void take_byte(struct ymodem *ymodem, uint8_t byte, uint64_t now) {
    ASSERT(ymodem->status == YMODEM_RECEIVING);
    ASSERT(ymodem->filled < sizeof ymodem->packet);
    if (ymodem->purging) {
        /* Still noise; CAN CAN counts even here. */
        if (byte == CAN && ymodem->can_seen) {
            end(ymodem, YMODEM_CANCELLED);
        }
        ymodem->can_seen = byte == CAN;
        ymodem->deadline = now + QUIET_TIME;
    } else if (ymodem->filled == 0) {
        take_first_byte(ymodem, byte, now);
    } else {
        ymodem->packet[ymodem->filled++] = byte;
        ymodem->deadline = now + BYTE_TIMEOUT;
        if (ymodem->filled == ymodem->wanted) {
            take_packet(ymodem, now);
        }
    }
}

void ymodem_feed(struct ymodem *ymodem, const uint8_t *data, size_t length, uint64_t now) {
    ASSERT(ymodem->callbacks != NULL);
    ASSERT(data != NULL || length == 0);
    for (size_t i = 0; i < length && ymodem->status == YMODEM_RECEIVING; i++) {
        take_byte(ymodem, data[i], now);
    }
}

uint64_t ymodem_poll(struct ymodem *ymodem, uint64_t now) {
    if (ymodem->status != YMODEM_RECEIVING) {
        return YMODEM_NEVER;
    }
    if (now >= ymodem->deadline) {
        ymodem->can_seen = false;
        if (ymodem->phase != WAIT_HEADER) {
            ymodem->errors++;
        }
        if (ymodem->phase == WAIT_END && ymodem->errors > MAX_ASKS_AT_END) {
            end(ymodem, YMODEM_DONE); /* the file is whole; some senders stop here */
        } else if (ymodem->errors > MAX_ERRORS) {
            end(ymodem, YMODEM_TIMED_OUT);
        } else {
            ask(ymodem, now);
        }
    }
    return ymodem->status == YMODEM_RECEIVING ? ymodem->deadline : YMODEM_NEVER;
}

bool ymodem_has_begun(const struct ymodem *ymodem) {
    return ymodem->status == YMODEM_RECEIVING &&
           (ymodem->phase != WAIT_HEADER || ymodem->filled > 0);
}

const char *ymodem_status_text(enum ymodem_status status) {
    switch (status) {
    case YMODEM_RECEIVING:
        return "receiving";
    case YMODEM_DONE:
        return "received";
    case YMODEM_CANCELLED:
        return "cancelled by the sender";
    case YMODEM_TOO_LARGE:
        return "file too large";
    case YMODEM_SHORT:
        return "file shorter than announced";
    case YMODEM_BAD_HEADER:
        return "first packet malformed";
    case YMODEM_OUT_OF_STEP:
        return "packets lost";
    case YMODEM_TIMED_OUT:
        return "the sender fell silent";
    case YMODEM_REFUSED:
        return "refused";
    case YMODEM_NO_FILE:
        return "no file was sent";
    case YMODEM_MORE_FILES:
        return "more than one file was sent";
    case YMODEM_NO_HEADER: /* no capital C, which would invite a sender */
        return "the file came without its name and size: send it by YMODEM (sb), not XMODEM (sx)";
    }
    return "unknown status";
}
