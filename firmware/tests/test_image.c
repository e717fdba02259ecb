#include "lib/image.h"
#include "lib/result.h"
#include "tests/check.h"

enum { BODY = 40 };

static uint8_t bytes[4096];
static size_t length;
static struct image image;

static void put16(size_t at, uint32_t value) {
    bytes[at] = (uint8_t)value;
    bytes[at + 1] = (uint8_t)(value >> 8);
}

static void put32(size_t at, uint32_t value) {
    put16(at, value & 0xFFFF);
    put16(at + 2, value >> 16);
}

static void add_tlv(uint32_t type, const void *value, size_t size) {
    put16(length, type);
    put16(length + 2, (uint32_t)size);
    memcpy(bytes + length + 4, value, size);
    length += 4 + size;
}

enum { SKIP_NOTHING = 0 };

/* A good image, but for the TLV type that is left out or the one that is added. */
static size_t protected_at;
static size_t unprotected_at;

static void make(int without, uint32_t extra_protected, uint32_t extra_unprotected) {
    static const uint8_t zeros[64];
    memset(bytes, 0, sizeof bytes);
    put32(0, IMAGE_MAGIC);
    put32(4, 0x100000);
    put16(8, IMAGE_HEADER_SIZE);
    put32(12, BODY);
    bytes[20] = 1;
    bytes[21] = 2;
    put16(22, 3);
    put32(24, 4);
    put32(IMAGE_HEADER_SIZE, 0x48020000);
    put32(IMAGE_HEADER_SIZE + 4, 0x00100209);
    protected_at = length = IMAGE_HEADER_SIZE + BODY;
    put16(length, 0x6908);
    length += 4;
    static const struct {
        int type;
        const char *value;
        size_t size;
    } covered[] = {{0x50, "\x05\0\0\0", 4}, {0xA0, "unbrick-a9-r1", 13},
                   {0xA1, "terminal", 8},   {0xA2, "2024-01-01T00:00:00Z", 20},
                   {0xA3, "\x02\0\0\0", 4}, {0xBB, "?", 1}};
    for (size_t i = 0; i < sizeof covered / sizeof covered[0]; i++) {
        if (covered[i].type != without) {
            add_tlv((uint32_t)covered[i].type, covered[i].value, covered[i].size);
        }
    }
    if (extra_protected != 0) {
        add_tlv(extra_protected, extra_protected == 0x50 ? "1234" : (const char *)zeros,
                extra_protected == 0x50 ? 4 : 32);
    }
    put16(protected_at + 2, (uint32_t)(length - protected_at));
    put16(10, (uint32_t)(length - protected_at));
    unprotected_at = length;
    put16(length, 0x6907);
    length += 4;
    if (without != 0x10) {
        add_tlv(0x10, zeros, 32);
    }
    if (without != 0x01) {
        add_tlv(0x01, zeros, 32);
    }
    if (without != 0x24) {
        add_tlv(0x24, zeros, 64);
    }
    if (extra_unprotected != 0) {
        add_tlv(extra_unprotected, zeros, extra_unprotected == 0x50 ? 4 : 32);
    }
    put16(unprotected_at + 2, (uint32_t)(length - unprotected_at));
}

/* Parses a copy that ends where `size` says, so that the sanitizer sees a read beyond it. */
static int parse(size_t size) {
    uint8_t *copy = malloc(size + (size == 0));
    CHECK(copy != NULL);
    memcpy(copy, bytes, size);
    const int error = image_parse(&image, copy, size);
    free(copy);
    return error;
}

static void test_good(void) {
    make(SKIP_NOTHING, 0, 0);
    bytes[length] = 0x55; /* what follows the image does not matter */
    CHECK_EQUAL(image_parse(&image, bytes, sizeof bytes), IMAGE_OK);
    CHECK_EQUAL(parse(length), IMAGE_OK);
    CHECK_EQUAL(image_parse(&image, bytes, length), IMAGE_OK);
    CHECK_EQUAL(image.total, length);
    CHECK_EQUAL(image.hashed, unprotected_at);
    CHECK_EQUAL(image.body_size, BODY);
    CHECK_EQUAL(image.load_address, 0x100000);
    CHECK_EQUAL(image.stack, 0x48020000);
    CHECK_EQUAL(image.entry, 0x00100209);
    CHECK_EQUAL(image.security_counter, 5);
    CHECK_EQUAL(image.userdata_format, 2);
    CHECK(image.digest == bytes + unprotected_at + 8);
    CHECK(image_text_equals(&image.hardware_id, "unbrick-a9-r1"));
    CHECK(!image_text_equals(&image.hardware_id, "unbrick-a9-r"));
    CHECK(!image_text_equals(&image.hardware_id, "unbrick-a9-r11"));
    char text[IMAGE_VERSION_TEXT_SIZE];
    image_version_text(&image.version, text);
    CHECK_TEXT(text, "1.2.3+4");
    image_version_text(&(struct image_version){255, 255, 65535, UINT32_MAX}, text);
    CHECK_TEXT(text, "255.255.65535+4294967295");
    char name[9];
    image_text_copy(&image.name, name, sizeof name);
    CHECK_TEXT(name, "terminal");
    image_text_copy(&image.name, name, 5);
    CHECK_TEXT(name, "term");
}

static void test_userdata_format(void) {
    make(0xA3, 0, 0);
    CHECK_EQUAL(image_parse(&image, bytes, length), IMAGE_OK);
    CHECK_EQUAL(image.userdata_format, 1);
    make(0xA3, 0xA3, 0); /* of 32 bytes */
    CHECK_EQUAL(parse(length), IMAGE_BAD_TLV_LENGTH);
    make(SKIP_NOTHING, 0xA3, 0);
    CHECK_EQUAL(parse(length), IMAGE_DUPLICATE_TLV);
    make(0xA3, 0, 0xA3);
    CHECK_EQUAL(parse(length), IMAGE_UNEXPECTED_TLV);
}

static void test_truncated(void) {
    make(SKIP_NOTHING, 0, 0);
    for (size_t size = 0; size < length; size++) {
        const int error = parse(size);
        CHECK_EQUAL(error, size < IMAGE_HEADER_SIZE ? IMAGE_TRUNCATED : IMAGE_TOO_LONG);
    }
}

static void test_missing_and_misplaced(void) {
    static const struct {
        int without;
        uint32_t extra_protected, extra_unprotected;
        int error, result;
    } cases[] = {
        {0x10, 0, 0, IMAGE_NO_HASH, RESULT_IMAGE_MALFORMED},
        {0x01, 0, 0, IMAGE_NO_SIGNATURE, RESULT_SIGNATURE},
        {0x24, 0, 0, IMAGE_NO_SIGNATURE, RESULT_SIGNATURE},
        {0x50, 0, 0, IMAGE_NO_COUNTER, RESULT_IMAGE_MALFORMED},
        {0xA0, 0, 0, IMAGE_NO_HARDWARE_ID, RESULT_OTHER_HARDWARE},
        {0xA1, 0, 0, IMAGE_NO_NAME, RESULT_IMAGE_MALFORMED},
        {0xA2, 0, 0, IMAGE_NO_BUILD_TIME, RESULT_IMAGE_MALFORMED},
        {SKIP_NOTHING, 0x50, 0, IMAGE_DUPLICATE_TLV, RESULT_IMAGE_MALFORMED},
        {SKIP_NOTHING, 0, 0x10, IMAGE_DUPLICATE_TLV, RESULT_IMAGE_MALFORMED},
        {0x50, 0, 0x50, IMAGE_UNEXPECTED_TLV, RESULT_IMAGE_MALFORMED}, /* nobody signed it */
        {0x10, 0x10, 0, IMAGE_UNEXPECTED_TLV, RESULT_IMAGE_MALFORMED},
        {SKIP_NOTHING, 0, 0x99, IMAGE_UNEXPECTED_TLV, RESULT_IMAGE_MALFORMED},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        make(cases[i].without, cases[i].extra_protected, cases[i].extra_unprotected);
        CHECK_EQUAL(parse(length), cases[i].error);
        CHECK_EQUAL(image_error_result(cases[i].error), cases[i].result);
    }
}

/* One field of a good image is changed. */
static void test_fields(void) {
    make(SKIP_NOTHING, 0, 0);
    const size_t p = protected_at;
    const size_t u = unprotected_at;
    const uint32_t protected_size = (uint32_t)(u - p);
    const uint32_t unprotected_size = (uint32_t)(length - u);
    const struct {
        size_t at;
        uint32_t value;
        int size;
        int error;
    } cases[] = {
        {0, 0x96F3B83C, 4, IMAGE_BAD_MAGIC},
        {0, 0xFFFFFFFF, 4, IMAGE_BLANK},
        {8, 0x20, 2, IMAGE_BAD_HEADER_SIZE},
        {8, 0x400, 2, IMAGE_BAD_HEADER_SIZE},
        {10, 0, 2, IMAGE_BAD_TLV_AREA}, /* the protected area stands where the other should */
        {10, 3, 2, IMAGE_BAD_PROTECTED},
        {10, protected_size - 1, 2, IMAGE_BAD_PROTECTED},
        {10, 0xFFFF, 2, IMAGE_TOO_LONG},
        {12, 0, 4, IMAGE_EMPTY},
        {12, 7, 4, IMAGE_EMPTY},
        {12, 0xFFFFFFFF, 4, IMAGE_TOO_LONG},
        {12, 0xFFFFFE00, 4, IMAGE_TOO_LONG},
        {12, 0x80000000, 4, IMAGE_TOO_LONG},
        {12, BODY + 4, 4, IMAGE_BAD_PROTECTED},
        {16, 0x04, 4, IMAGE_BAD_FLAGS},
        {16, 0x10, 4, IMAGE_BAD_FLAGS},
        {16, 0x20, 4, IMAGE_BAD_FLAGS},
        {16, 0x100, 4, IMAGE_OK},
        {p, 0x6907, 2, IMAGE_BAD_PROTECTED},
        {p + 2, protected_size + 1, 2, IMAGE_BAD_PROTECTED},
        {p + 6, 5, 2, IMAGE_BAD_TLV_LENGTH},
        {p + 6, 0xFFFF, 2, IMAGE_BAD_TLV},
        {p + 6, protected_size - 8, 2, IMAGE_BAD_TLV_LENGTH},
        {p + 6, protected_size - 7, 2, IMAGE_BAD_TLV},
        {p + 14, 0, 2, IMAGE_BAD_TLV_LENGTH},
        {p + 14, 32, 2, IMAGE_BAD_TLV_LENGTH},
        {p + 20, 0, 1, IMAGE_BAD_TLV_LENGTH}, /* a NUL in the hardware ID */
        {p + 20, 0x80, 1, IMAGE_BAD_TLV_LENGTH},
        {u, 0x6908, 2, IMAGE_BAD_TLV_AREA},
        {u + 2, 3, 2, IMAGE_BAD_TLV_AREA},
        {u + 2, unprotected_size + 1, 2, IMAGE_TOO_LONG},
        {u + 2, unprotected_size - 1, 2, IMAGE_BAD_TLV},
        {u + 2, 6, 2, IMAGE_BAD_TLV},
        {u + 2, 4, 2, IMAGE_NO_HASH},
        {u + 6, 31, 2, IMAGE_BAD_TLV_LENGTH},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        make(SKIP_NOTHING, 0, 0);
        for (int byte = 0; byte < cases[i].size; byte++) {
            bytes[cases[i].at + (size_t)byte] = (uint8_t)(cases[i].value >> (8 * byte));
        }
        const int error = parse(length);
        if (error != cases[i].error) {
            fprintf(stderr, "case %zu: %s\n", i, image_error_text(error));
        }
        CHECK_EQUAL(error, cases[i].error);
    }
}

/* Whatever a single byte is changed to: never a read outside the image. */
static void test_every_byte(void) {
    make(SKIP_NOTHING, 0, 0);
    const size_t size = length;
    for (size_t at = 0; at < size; at++) {
        for (int value = 0; value < 256; value += 15) {
            make(SKIP_NOTHING, 0, 0);
            bytes[at] = (uint8_t)value;
            if (parse(size) == IMAGE_OK) {
                CHECK(image.total <= size && image.hashed < image.total);
            }
        }
    }
}

static void test_texts(void) {
    for (int error = IMAGE_NO_BUILD_TIME; error <= IMAGE_BLANK; error++) {
        CHECK(strcmp(image_error_text(error), "unknown image error") != 0);
        for (int other = IMAGE_NO_BUILD_TIME; other < error; other++) {
            CHECK(strcmp(image_error_text(error), image_error_text(other)) != 0);
        }
    }
    CHECK_EQUAL(image_error_result(IMAGE_OK), RESULT_SUCCESS);
    CHECK_EQUAL(image_error_result(IMAGE_BLANK), RESULT_IMAGE_MALFORMED);
}

static void test_versions(void) {
    static const char *const good[] = {"0.0.0+0", "1.2.3+4", "255.255.65535+4294967295"};
    static const char *const bad[] = {
        "",       "1",       "1.1",     "1.1.",    "1.1.1+",    "1.1.1 ",
        "1.1.1-", "1.1.1.1", "256.0.0", "0.256.0", "0.0.65536", "0.0.0+4294967296",
        "a.b.c",  "-1.0.0",  "+1.0.0",  "1..1",    "1.1.1+1 ",  "99999999999999999999.0.0",
    };
    struct image_version version;
    char text[IMAGE_VERSION_TEXT_SIZE];
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        CHECK(image_version_parse(good[i], &version));
        image_version_text(&version, text);
        CHECK_TEXT(text, good[i]);
    }
    CHECK(image_version_parse("1.2.3", &version));
    image_version_text(&version, text);
    CHECK_TEXT(text, "1.2.3+0");
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK(!image_version_parse(bad[i], &version));
    }
}

int main(void) {
    test_versions();
    test_good();
    test_userdata_format();
    test_truncated();
    test_missing_and_misplaced();
    test_fields();
    test_every_byte();
    test_texts();
    return 0;
}
