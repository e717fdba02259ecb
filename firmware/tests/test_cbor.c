#include "lib/cbor.h"
#include "tests/check.h"

static struct cbor_field fields[] = {
    {.key = 1, .kind = CBOR_TEXT, .minimum = 1, .maximum = 5},
    {.key = 2, .kind = CBOR_UINT, .maximum = 1000},
    {.key = 300, .kind = CBOR_BYTES, .minimum = 2, .maximum = 2, .required = true},
};

#define DECODE(bytes) cbor_decode_map((const uint8_t *)(bytes), sizeof(bytes) - 1, fields, 3)
#define REQUIRED "\x19\x01\x2C\x42\xAA\xBB" /* 300: h'AABB' */

static void test_decode(void) {
    char text[6];
    CHECK_EQUAL(DECODE("\xA3\x01\x65"
                       "hello\x02\x19\x03\xE8" REQUIRED),
                CBOR_OK);
    CHECK(fields[0].present && fields[1].present && fields[2].present);
    CHECK(cbor_copy_text(&fields[0], text, 6));
    CHECK_TEXT(text, "hello");
    CHECK(!cbor_copy_text(&fields[0], text, 5));
    CHECK_TEXT(text, "");
    CHECK_EQUAL(fields[1].number, 1000);
    CHECK_EQUAL(fields[2].length, 2);
    CHECK(memcmp(fields[2].data, "\xAA\xBB", 2) == 0);

    CHECK_EQUAL(DECODE("\xA1" REQUIRED), CBOR_OK);
    CHECK(!fields[0].present && !fields[1].present);
    CHECK(!cbor_copy_text(&fields[0], text, 6));

    /* Unknown keys with values of every kind; tags, nesting, floats, simple values. */
    CHECK_EQUAL(
        DECODE("\xA8\x03\x20\x04\x83\x01\x02\xA1\x05\x80\x05\xC1\x1A\x00\x00\x00\x01\x06"
               "\xF9\x00\x00\x07\xFB\x00\x00\x00\x00\x00\x00\x00\x00\x08\xF6\x09\x40" REQUIRED),
        CBOR_OK);
    /* A NUL in a text is valid, but makes no string. */
    CHECK_EQUAL(DECODE("\xA2\x01\x62"
                       "a\0" REQUIRED),
                CBOR_OK);
    CHECK(!cbor_copy_text(&fields[0], text, 6));
}

static void test_refusals(void) {
    CHECK_EQUAL(DECODE(""), CBOR_TRUNCATED);
    CHECK_EQUAL(DECODE("\xA0"), CBOR_MISSING);
    CHECK_EQUAL(DECODE("\x80"), CBOR_NOT_A_MAP);
    CHECK_EQUAL(DECODE("\xA1\x20\x01"), CBOR_KEY);
    CHECK_EQUAL(DECODE("\xA1\x61"
                       "a\x01"),
                CBOR_KEY);
    CHECK_EQUAL(DECODE("\xA2" REQUIRED REQUIRED), CBOR_DUPLICATE);
    CHECK_EQUAL(DECODE("\xA2\x02\x61"
                       "a" REQUIRED),
                CBOR_KIND);
    CHECK_EQUAL(DECODE("\xA2\x01\x41"
                       "a" REQUIRED),
                CBOR_KIND);
    CHECK_EQUAL(DECODE("\xA2\x01\x60" REQUIRED), CBOR_RANGE);
    CHECK_EQUAL(DECODE("\xA2\x01\x66"
                       "abcdef" REQUIRED),
                CBOR_RANGE);
    CHECK_EQUAL(DECODE("\xA2\x02\x19\x03\xE9" REQUIRED), CBOR_RANGE);
    CHECK_EQUAL(DECODE("\xA1" REQUIRED "\x00"), CBOR_TRAILING);
    CHECK_EQUAL(DECODE("\xA2\x01\x61\xFF" REQUIRED), CBOR_MALFORMED); /* not UTF-8 */
    CHECK_EQUAL(DECODE("\xBF" REQUIRED "\xFF"), CBOR_MALFORMED);      /* indefinite */
    CHECK_EQUAL(DECODE("\xA2\x03\x9F\xFF" REQUIRED), CBOR_MALFORMED);
    CHECK_EQUAL(DECODE("\xA2\x03\x1C" REQUIRED), CBOR_MALFORMED);     /* reserved */
    CHECK_EQUAL(DECODE("\xA2\x03\xF8\x10" REQUIRED), CBOR_MALFORMED); /* simple below 32 */
    CHECK_EQUAL(DECODE("\xA2\x03\x81\x81\x81\x81\x00" REQUIRED), CBOR_OK);
    CHECK_EQUAL(DECODE("\xA2\x03\x81\x81\x81\x81\x81\x00" REQUIRED), CBOR_DEPTH);
    CHECK_EQUAL(DECODE("\xA2\x03\x9B\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF" REQUIRED), CBOR_TRUNCATED);
    CHECK_EQUAL(DECODE("\xA2\x03\xBB\x80\x00\x00\x00\x00\x00\x00\x00" REQUIRED), CBOR_TRUNCATED);
    CHECK_EQUAL(DECODE("\xA2\x03\x5B\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF" REQUIRED), CBOR_TRUNCATED);
    CHECK_EQUAL(DECODE("\xBB\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF" REQUIRED), CBOR_TRUNCATED);
}

/* Every prefix of a good map is truncated, and no byte behind its end is looked at. */
static void test_truncation(void) {
    static const uint8_t whole[] = "\xA3\x01\x65hello\x04\x83\x01\x02\xA1\x05\x80" REQUIRED;
    for (size_t length = 0; length < sizeof whole - 1; length++) {
        uint8_t *copy = malloc(length + (length == 0)); /* the sanitizer watches its end */
        CHECK(copy != NULL);
        memcpy(copy, whole, length);
        CHECK_EQUAL(cbor_decode_map(copy, length, fields, 3), CBOR_TRUNCATED);
        free(copy);
    }
    CHECK_EQUAL(cbor_decode_map(whole, sizeof whole - 1, fields, 3), CBOR_OK);
}

static void test_encode(void) {
    uint8_t buffer[64];
    struct cbor_encoder encoder;
    static const struct {
        uint64_t value;
        const char *bytes;
        size_t length;
    } numbers[] = {{0, "\x00", 1},
                   {23, "\x17", 1},
                   {24, "\x18\x18", 2},
                   {255, "\x18\xFF", 2},
                   {256, "\x19\x01\x00", 3},
                   {65535, "\x19\xFF\xFF", 3},
                   {65536, "\x1A\x00\x01\x00\x00", 5},
                   {UINT32_MAX, "\x1A\xFF\xFF\xFF\xFF", 5},
                   {(uint64_t)UINT32_MAX + 1, "\x1B\x00\x00\x00\x01\x00\x00\x00\x00", 9},
                   {UINT64_MAX, "\x1B\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 9}};
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        cbor_encoder_init(&encoder, buffer, sizeof buffer);
        cbor_put_uint(&encoder, numbers[i].value);
        CHECK_EQUAL(cbor_encoder_finish(&encoder), numbers[i].length);
        CHECK(memcmp(buffer, numbers[i].bytes, numbers[i].length) == 0);
    }
    cbor_encoder_init(&encoder, buffer, sizeof buffer);
    cbor_put_map(&encoder, 3);
    cbor_pair_text(&encoder, 1, "hello");
    cbor_pair_uint(&encoder, 2, 1000);
    cbor_pair_bytes(&encoder, 300, "\xAA\xBB", 2);
    const size_t length = cbor_encoder_finish(&encoder);
    CHECK_EQUAL(length, 18);
    CHECK_EQUAL(cbor_decode_map(buffer, length, fields, 3), CBOR_OK);

    /* One byte too few anywhere, and the result is 0, also when something small came later. */
    for (size_t size = 0; size < length; size++) {
        cbor_encoder_init(&encoder, buffer, size);
        cbor_put_map(&encoder, 3);
        cbor_pair_text(&encoder, 1, "hello");
        cbor_pair_uint(&encoder, 2, 1000);
        cbor_pair_bytes(&encoder, 300, "\xAA\xBB", 2);
        cbor_put_bytes(&encoder, NULL, 0);
        CHECK_EQUAL(cbor_encoder_finish(&encoder), 0);
        CHECK(encoder.length <= size);
    }
}

static void test_items(void) {
    uint8_t buffer[16];
    char text[4];
    uint32_t number;
    struct cbor_encoder encoder;
    cbor_encoder_init(&encoder, buffer, sizeof buffer);
    cbor_put_array(&encoder, 3);
    cbor_put_uint(&encoder, 1000);
    cbor_put_text(&encoder, "abc");
    cbor_put_text(&encoder, "");
    const size_t length = cbor_encoder_finish(&encoder);
    CHECK_EQUAL(length, 9);
    struct cbor_reader reader = {buffer, length};
    CHECK(cbor_read_array(&reader, &number) && number == 3);
    CHECK(cbor_read_uint(&reader, 1000, &number) && number == 1000);
    CHECK(cbor_read_text(&reader, text, sizeof text));
    CHECK_TEXT(text, "abc");
    CHECK(cbor_read_text(&reader, text, sizeof text));
    CHECK_TEXT(text, "");
    CHECK_EQUAL(reader.left, 0);
    CHECK(!cbor_read_text(&reader, text, sizeof text));

    reader = (struct cbor_reader){buffer + 1, length - 1};
    CHECK(!cbor_read_uint(&reader, 999, &number));
    reader = (struct cbor_reader){buffer + 4, length - 4};
    CHECK(!cbor_read_text(&reader, text, 3)); /* the NUL does not fit */
    reader = (struct cbor_reader){(const uint8_t *)"\x62\0a", 3};
    CHECK(!cbor_read_text(&reader, text, sizeof text));
    reader = (struct cbor_reader){(const uint8_t *)"\x82\0", 2};
    CHECK(!cbor_read_array(&reader, &number)); /* more items than bytes */
    reader = (struct cbor_reader){buffer, length};
    CHECK(!cbor_read_uint(&reader, UINT32_MAX, &number));
}

int main(void) {
    test_items();
    test_decode();
    test_refusals();
    test_truncation();
    test_encode();
    return 0;
}
