/* What the Python tests call to compare the library with other implementations: messages in, a
 * description in plain text out. */
#include <string.h>

#include "lib/cbor.h"
#include "lib/coap.h"
#include "lib/image.h"
#include "lib/print.h"
#include "lib/slipmux.h"

size_t shim_coap_describe(const uint8_t *data, size_t length, char *text, size_t size);
size_t shim_coap_rebuild(const uint8_t *data, size_t length, uint8_t *out, size_t size);
int shim_cbor_describe(const uint8_t *data, size_t length, char *text, size_t size);
size_t shim_cbor_rebuild(const uint8_t *data, size_t length, uint8_t *out, size_t size);
size_t shim_slipmux_send(int type, const uint8_t *data, size_t length, uint8_t *out, size_t size);
size_t shim_slipmux_describe(const uint8_t *data, size_t length, char *text, size_t size);
int shim_image_describe(const uint8_t *data, size_t length, char *text, size_t size);

struct text {
    char *at;
    size_t left;
};

static void say(struct text *text, const char *before, const uint8_t *data, size_t length) {
    size_t used = print_text(text->at, text->left, "%s", before);
    text->at += used;
    text->left -= used;
    for (size_t i = 0; i < length; i++) {
        used = print_text(text->at, text->left, "%02x", (unsigned)data[i]);
        text->at += used;
        text->left -= used;
    }
}

static void say_number(struct text *text, const char *before, uint64_t number) {
    uint8_t bytes[8];
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = (uint8_t)(number >> (56 - 8 * i));
    }
    say(text, before, bytes, sizeof bytes);
}

/* "type code mid token number=value ... payload", all in hexadecimal; 0 when it is malformed. */
size_t shim_coap_describe(const uint8_t *data, size_t length, char *out, size_t size) {
    struct coap_message message;
    struct coap_option option;
    struct coap_option_iterator options;
    if (!coap_parse(&message, data, length)) {
        return 0;
    }
    struct text text = {out, size};
    const size_t used = print_text(out, size, "%u %u %u ", (unsigned)message.type,
                                   (unsigned)message.code, (unsigned)message.mid);
    text.at += used;
    text.left -= used;
    say(&text, "", message.token, message.token_length);
    coap_options(&message, &options);
    while (coap_next_option(&options, &option)) {
        char number[16];
        print_text(number, sizeof number, " %u=", (unsigned)option.number);
        say(&text, number, option.value, option.length);
    }
    say(&text, " ", message.payload, message.payload_length);
    return (size_t)(text.at - out);
}

/* The same message, built anew from its parts; 0 when it is malformed. */
size_t shim_coap_rebuild(const uint8_t *data, size_t length, uint8_t *out, size_t size) {
    struct coap_message message;
    struct coap_option option;
    struct coap_option_iterator options;
    struct coap_builder builder;
    if (!coap_parse(&message, data, length)) {
        return 0;
    }
    coap_build(&builder, out, size, message.type, message.code, message.mid, message.token,
               message.token_length);
    coap_options(&message, &options);
    while (coap_next_option(&options, &option)) {
        coap_build_option(&builder, option.number, option.value, option.length);
    }
    coap_build_payload(&builder, message.payload, message.payload_length);
    return coap_build_finish(&builder);
}

enum { FIELDS = 4 };

static enum cbor_error decode(const uint8_t *data, size_t length, struct cbor_field *fields) {
    static const struct cbor_field known[FIELDS] = {
        {.key = 1, .kind = CBOR_TEXT, .maximum = 64},
        {.key = 2, .kind = CBOR_UINT, .maximum = UINT64_MAX},
        {.key = 3, .kind = CBOR_BYTES, .maximum = 300},
        {.key = 1000, .kind = CBOR_UINT, .maximum = UINT64_MAX},
    };
    memcpy(fields, known, sizeof known);
    return cbor_decode_map(data, length, fields, FIELDS);
}

/* " key=value" of the known keys 1 (text), 2 (unsigned), 3 (bytes), 1000 (unsigned). */
int shim_cbor_describe(const uint8_t *data, size_t length, char *out, size_t size) {
    struct cbor_field fields[FIELDS];
    struct text text = {out, size};
    const enum cbor_error error = decode(data, length, fields);
    out[0] = '\0';
    for (size_t i = 0; i < FIELDS && error == CBOR_OK; i++) {
        char key[16];
        print_text(key, sizeof key, " %u=", (unsigned)fields[i].key);
        if (fields[i].present && fields[i].kind == CBOR_UINT) {
            say_number(&text, key, fields[i].number);
        } else if (fields[i].present) {
            say(&text, key, fields[i].data, fields[i].length);
        }
    }
    return error;
}

/* The known keys of a map, encoded anew; 0 when it is malformed or its text is no string. */
size_t shim_cbor_rebuild(const uint8_t *data, size_t length, uint8_t *out, size_t size) {
    struct cbor_field fields[FIELDS];
    struct cbor_encoder encoder;
    char text[65];
    if (decode(data, length, fields) != CBOR_OK ||
        (fields[0].present && !cbor_copy_text(&fields[0], text, sizeof text))) {
        return 0;
    }
    size_t present = 0;
    for (size_t i = 0; i < FIELDS; i++) {
        present += fields[i].present;
    }
    cbor_encoder_init(&encoder, out, size);
    cbor_put_map(&encoder, present);
    if (fields[0].present) {
        cbor_pair_text(&encoder, 1, text);
    }
    if (fields[1].present) {
        cbor_pair_uint(&encoder, 2, fields[1].number);
    }
    if (fields[2].present) {
        cbor_pair_bytes(&encoder, 3, fields[2].data, fields[2].length);
    }
    if (fields[3].present) {
        cbor_pair_uint(&encoder, 1000, fields[3].number);
    }
    return cbor_encoder_finish(&encoder);
}

struct sink {
    uint8_t *out;
    size_t size;
    size_t length;
};

static void emit(void *ctx, uint8_t byte) {
    struct sink *sink = ctx;
    if (sink->length < sink->size) {
        sink->out[sink->length++] = byte;
    }
}

size_t shim_slipmux_send(int type, const uint8_t *data, size_t length, uint8_t *out, size_t size) {
    struct sink sink = {out, size, 0};
    slipmux_send((enum slipmux_type)type, data, length, emit, &sink);
    return sink.length;
}

/* " type=contents" of every good frame, then " dropped=" and how many were not. */
size_t shim_slipmux_describe(const uint8_t *data, size_t length, char *out, size_t size) {
    uint8_t buffer[SLIPMUX_MAX_FRAME];
    struct slipmux_receiver receiver;
    struct slipmux_frame frame;
    struct text text = {out, size};
    slipmux_init(&receiver, buffer, sizeof buffer);
    for (size_t i = 0; i < length; i++) {
        if (slipmux_feed(&receiver, data[i], &frame)) {
            say(&text, frame.type == SLIPMUX_COAP ? " 169=" : " 10=", frame.data, frame.length);
        }
    }
    return (size_t)(text.at - out) +
           print_text(text.at, text.left, " dropped=%u", (unsigned)receiver.dropped);
}

static void say_text(struct text *text, const struct image_text *field) {
    char copy[IMAGE_MAX_TEXT + 1];
    image_text_copy(field, copy, sizeof copy);
    const size_t used = print_text(text->at, text->left, "%s|", copy);
    text->at += used;
    text->left -= used;
}

/* "name|build time|hardware ID|version|counter|size|hashed|load address|stack|entry|" and the
 * digest, key hash and signature. Returns the image_error. */
int shim_image_describe(const uint8_t *data, size_t length, char *out, size_t size) {
    struct image image;
    struct text text = {out, size};
    char version[IMAGE_VERSION_TEXT_SIZE];
    const int error = image_parse(&image, data, length);
    out[0] = '\0';
    if (error != IMAGE_OK) {
        return error;
    }
    say_text(&text, &image.name);
    say_text(&text, &image.build_time);
    say_text(&text, &image.hardware_id);
    image_version_text(&image.version, version);
    const size_t used = print_text(
        text.at, text.left, "%s|%u|%u|%u|%u|%u|%u|%u|", version, (unsigned)image.security_counter,
        (unsigned)image.userdata_format, (unsigned)image.total, (unsigned)image.hashed,
        (unsigned)image.load_address, (unsigned)image.stack, (unsigned)image.entry);
    text.at += used;
    text.left -= used;
    say(&text, "", image.digest, IMAGE_DIGEST_SIZE);
    say(&text, "|", image.key_hash, IMAGE_DIGEST_SIZE);
    say(&text, "|", image.signature, IMAGE_SIGNATURE_SIZE);
    return error;
}
