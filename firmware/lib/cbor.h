/* As much of CBOR (RFC 8949) as the protocols use: maps of definite length with unsigned keys and
 * unsigned, text or byte string values; arrays of definite length. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Encoder: writes into a bounded buffer; once something did not fit, nothing more is written. */
struct cbor_encoder {
    uint8_t *buffer;
    size_t size;
    size_t length;
    bool overflow;
};

void cbor_encoder_init(struct cbor_encoder *encoder, uint8_t *buffer, size_t size);
void cbor_put_map(struct cbor_encoder *encoder, size_t pairs);
void cbor_put_array(struct cbor_encoder *encoder, size_t items);
void cbor_put_uint(struct cbor_encoder *encoder, uint64_t value);
void cbor_put_bytes(struct cbor_encoder *encoder, const void *data, size_t length);
void cbor_put_text(struct cbor_encoder *encoder, const char *text);

/* One key and its value. */
void cbor_pair_uint(struct cbor_encoder *encoder, uint64_t key, uint64_t value);
void cbor_pair_bytes(struct cbor_encoder *encoder, uint64_t key, const void *data, size_t length);
void cbor_pair_text(struct cbor_encoder *encoder, uint64_t key, const char *text);

/* Bytes written, or 0 when the buffer was too small. */
size_t cbor_encoder_finish(const struct cbor_encoder *encoder);

enum cbor_error {
    CBOR_OK = 0,
    CBOR_TRUNCATED = -1, /* ends in the middle of an item */
    CBOR_MALFORMED = -2, /* reserved or indefinite-length head, or text that is not UTF-8 */
    CBOR_NOT_A_MAP = -3,
    CBOR_KEY = -4,       /* a key that is not an unsigned integer */
    CBOR_DUPLICATE = -5, /* a known key twice */
    CBOR_KIND = -6,      /* a known key with a value of another kind */
    CBOR_RANGE = -7,     /* a value or length outside its bounds */
    CBOR_MISSING = -8,   /* a required key is not there */
    CBOR_DEPTH = -9,     /* nested deeper than CBOR_MAX_DEPTH */
    CBOR_TRAILING = -10, /* bytes after the map */
};

/* How deep a value that is skipped may be nested. */
#define CBOR_MAX_DEPTH 4u

enum cbor_kind { CBOR_UINT, CBOR_BYTES, CBOR_TEXT };

/* One key that the caller knows. The first five are set by the caller. */
struct cbor_field {
    uint64_t key;
    enum cbor_kind kind;
    bool required;
    uint64_t minimum; /* of the value, or of the length in bytes of a string */
    uint64_t maximum;

    bool present; /* set by cbor_decode_map, like the rest */
    uint64_t number;
    const uint8_t *data; /* into the input; text is valid UTF-8 without a terminating NUL */
    size_t length;
};

/* Decode exactly one map that fills the input. Unknown keys and their values are checked to be
 * well-formed and skipped. Never reads outside the input. Returns CBOR_OK or what is wrong, then
 * `fields` holds nothing of use. */
enum cbor_error cbor_decode_map(const uint8_t *data, size_t length, struct cbor_field *fields,
                                size_t count);

/* Copies a text field to a NUL-terminated string. False (and an empty string) when it is absent,
 * does not fit, or holds a NUL. */
bool cbor_copy_text(const struct cbor_field *field, char *text, size_t size);

/* Reading item by item what must be just so. Begin with all of the input; `left` is 0 at its end.
 * Never reads outside the input. False: the next item is another one, beyond the bounds, or
 * malformed; the reader is then of no more use. */
struct cbor_reader {
    const uint8_t *next;
    size_t left; /* bytes */
};

/* The head of an array; its `count` items follow. There are not more than bytes that are left. */
bool cbor_read_array(struct cbor_reader *reader, uint32_t *count);

/* A number of at most `maximum`. */
bool cbor_read_uint(struct cbor_reader *reader, uint32_t maximum, uint32_t *value);

/* A text without a NUL, valid UTF-8, that fits in `size` bytes (at least 1) with a NUL behind it.
 */
bool cbor_read_text(struct cbor_reader *reader, char *text, size_t size);
