/* Any bytes as a map: what is found lies inside the input and within the bounds asked for, and
 * decodes to the same when it is encoded again. */
#include "lib/cbor.h"
#include "tests/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { FIELDS = 4 };

static void prepare(struct cbor_field *fields) {
    static const struct cbor_field known[FIELDS] = {
        {.key = 1, .kind = CBOR_TEXT, .minimum = 1, .maximum = 31},
        {.key = 2, .kind = CBOR_UINT, .maximum = UINT32_MAX},
        {.key = 3, .kind = CBOR_BYTES, .maximum = 32},
        {.key = UINT64_MAX, .kind = CBOR_UINT, .maximum = UINT64_MAX},
    };
    memcpy(fields, known, sizeof known);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct cbor_field fields[FIELDS];
    struct cbor_field again[FIELDS];
    struct cbor_encoder encoder;
    uint8_t buffer[256];
    char text[40];
    prepare(fields);
    prepare(again);
    if (cbor_decode_map(data, size, fields, FIELDS) != CBOR_OK) {
        return 0;
    }
    size_t present = 0;
    for (size_t i = 0; i < FIELDS; i++) {
        present += fields[i].present;
    }
    cbor_encoder_init(&encoder, buffer, sizeof buffer);
    cbor_put_map(&encoder, present);
    for (size_t i = 0; i < FIELDS; i++) {
        const struct cbor_field *field = &fields[i];
        if (!field->present) {
            continue;
        }
        cbor_put_uint(&encoder, field->key);
        if (field->kind == CBOR_UINT) {
            CHECK(field->number >= field->minimum && field->number <= field->maximum);
            cbor_put_uint(&encoder, field->number);
            continue;
        }
        CHECK(field->length >= field->minimum && field->length <= field->maximum);
        CHECK(field->data >= data && field->data + field->length <= data + size);
        if (field->kind == CBOR_BYTES) {
            cbor_put_bytes(&encoder, field->data, field->length);
        } else if (cbor_copy_text(field, text, sizeof text)) {
            CHECK(strlen(text) == field->length);
            cbor_put_text(&encoder, text);
        } else {
            return 0; /* a text with a NUL: the encoder takes strings */
        }
    }
    const size_t length = cbor_encoder_finish(&encoder);
    CHECK(length > 0);
    CHECK(cbor_decode_map(buffer, length, again, FIELDS) == CBOR_OK);
    for (size_t i = 0; i < FIELDS; i++) {
        CHECK(again[i].present == fields[i].present && again[i].number == fields[i].number &&
              again[i].length == fields[i].length);
    }
    return 0;
}
