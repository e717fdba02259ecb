#include "lib/image.h"

#include <string.h>

#include "lib/assert.h"
#include "lib/print.h"
#include "lib/result.h"

/* Offsets in the header and the TLV areas, and the types, as MCUboot has them. */
enum {
    HEADER_LOAD_ADDRESS = 4,
    HEADER_HEADER_SIZE = 8,
    HEADER_PROTECTED_SIZE = 10,
    HEADER_BODY_SIZE = 12,
    HEADER_FLAGS = 16,
    HEADER_VERSION = 20,
};

#define FLAG_ROM_FIXED 0x100u /* the load address is where it must lie: no harm */
#define MAGIC_UNPROTECTED 0x6907u
#define MAGIC_PROTECTED 0x6908u
#define TLV_INFO_SIZE 4u
#define TLV_HEAD_SIZE 4u

enum tlv {
    TLV_KEY_HASH = 0x01,
    TLV_SHA256 = 0x10,
    TLV_ED25519 = 0x24,
    TLV_SECURITY_COUNTER = 0x50,
    TLV_HARDWARE_ID = 0xA0,
    TLV_NAME = 0xA1,
    TLV_BUILD_TIME = 0xA2,
    TLV_USERDATA_FORMAT = 0xA3,
};

static uint32_t get16(const uint8_t *bytes) {
    return bytes[0] | (uint32_t)bytes[1] << 8;
}

static uint32_t get32(const uint8_t *bytes) {
    return get16(bytes) | get16(bytes + 2) << 16;
}

static int take_bytes(const uint8_t **field, const uint8_t *value, uint32_t length,
                      uint32_t wanted) {
    if (*field != NULL) {
        return IMAGE_DUPLICATE_TLV;
    }
    if (length != wanted) {
        return IMAGE_BAD_TLV_LENGTH;
    }
    *field = value;
    return IMAGE_OK;
}

static int take_text(struct image_text *field, const uint8_t *value, uint32_t length) {
    if (field->text != NULL) {
        return IMAGE_DUPLICATE_TLV;
    }
    if (length == 0 || length > IMAGE_MAX_TEXT) {
        return IMAGE_BAD_TLV_LENGTH;
    }
    for (uint32_t i = 0; i < length; i++) {
        if (value[i] < 0x20 || value[i] >= 0x7F) {
            return IMAGE_BAD_TLV_LENGTH;
        }
    }
    *field = (struct image_text){(const char *)value, length};
    return IMAGE_OK;
}

/* Numbers of 4 bytes among the protected TLVs; NULL: not there. */
struct numbers {
    const uint8_t *counter;
    const uint8_t *userdata_format;
};

/* What only counts when the hash covers it. */
static int take_protected(struct image *image, uint32_t type, const uint8_t *value, uint32_t length,
                          struct numbers *numbers) {
    switch (type) {
    case TLV_SECURITY_COUNTER:
        return take_bytes(&numbers->counter, value, length, 4);
    case TLV_USERDATA_FORMAT:
        return take_bytes(&numbers->userdata_format, value, length, 4);
    case TLV_HARDWARE_ID:
        return take_text(&image->hardware_id, value, length);
    case TLV_NAME:
        return take_text(&image->name, value, length);
    case TLV_BUILD_TIME:
        return take_text(&image->build_time, value, length);
    case TLV_KEY_HASH:
    case TLV_SHA256:
    case TLV_ED25519:
        return IMAGE_UNEXPECTED_TLV;
    default:
        return IMAGE_OK;
    }
}

/* What is about the hash. Nobody vouches for anything else that stands here. */
static int take_unprotected(struct image *image, uint32_t type, const uint8_t *value,
                            uint32_t length) {
    switch (type) {
    case TLV_KEY_HASH:
        return take_bytes(&image->key_hash, value, length, IMAGE_DIGEST_SIZE);
    case TLV_SHA256:
        return take_bytes(&image->digest, value, length, IMAGE_DIGEST_SIZE);
    case TLV_ED25519:
        return take_bytes(&image->signature, value, length, IMAGE_SIGNATURE_SIZE);
    default:
        return IMAGE_UNEXPECTED_TLV;
    }
}

/* Walks the TLVs of the area at `area`, `size` bytes with its head. */
static int walk(struct image *image, const uint8_t *area, uint32_t size, bool protected_area,
                struct numbers *numbers) {
    ASSERT(size >= TLV_INFO_SIZE);
    ASSERT(area > image->start);
    uint32_t at = TLV_INFO_SIZE;
    while (at < size) {
        if (size - at < TLV_HEAD_SIZE) {
            return IMAGE_BAD_TLV;
        }
        const uint32_t type = get16(area + at);
        const uint32_t length = get16(area + at + 2);
        at += TLV_HEAD_SIZE;
        if (length > size - at) {
            return IMAGE_BAD_TLV;
        }
        const int error = protected_area ? take_protected(image, type, area + at, length, numbers)
                                         : take_unprotected(image, type, area + at, length);
        if (error != IMAGE_OK) {
            return error;
        }
        at += length;
    }
    return IMAGE_OK;
}

/* Header and body: everything that needs no TLV. `left` is what follows the body in the range. */
static int parse_header(struct image *image, const uint8_t *start, size_t available,
                        uint32_t *left) {
    static const uint8_t erased[4] = {0xFF, 0xFF, 0xFF, 0xFF};
    if (available >= sizeof erased && memcmp(start, erased, sizeof erased) == 0) {
        return IMAGE_BLANK;
    }
    if (available < IMAGE_HEADER_SIZE) {
        return IMAGE_TRUNCATED;
    }
    if (get32(start) != IMAGE_MAGIC) {
        return IMAGE_BAD_MAGIC;
    }
    if (get16(start + HEADER_HEADER_SIZE) != IMAGE_HEADER_SIZE) {
        return IMAGE_BAD_HEADER_SIZE;
    }
    if ((get32(start + HEADER_FLAGS) & ~FLAG_ROM_FIXED) != 0) {
        return IMAGE_BAD_FLAGS;
    }
    const uint32_t bound = available > UINT32_MAX ? UINT32_MAX : (uint32_t)available;
    image->start = start;
    image->load_address = get32(start + HEADER_LOAD_ADDRESS);
    image->body_size = get32(start + HEADER_BODY_SIZE);
    image->version = (struct image_version){
        .major = start[HEADER_VERSION],
        .minor = start[HEADER_VERSION + 1],
        .revision = (uint16_t)get16(start + HEADER_VERSION + 2),
        .build = get32(start + HEADER_VERSION + 4),
    };
    if (image->body_size > bound - IMAGE_HEADER_SIZE) {
        return IMAGE_TOO_LONG;
    }
    if (image->body_size < 8) {
        return IMAGE_EMPTY;
    }
    image->stack = get32(start + IMAGE_HEADER_SIZE);
    image->entry = get32(start + IMAGE_HEADER_SIZE + 4);
    *left = bound - IMAGE_HEADER_SIZE - image->body_size;
    return IMAGE_OK;
}

static int parse_areas(struct image *image, uint32_t left, struct numbers *numbers) {
    ASSERT(image->start != NULL);
    ASSERT(image->body_size >= 8);
    const uint32_t protected_size = get16(image->start + HEADER_PROTECTED_SIZE);
    const uint8_t *area = image->start + IMAGE_HEADER_SIZE + image->body_size;
    if (protected_size > left) {
        return IMAGE_TOO_LONG;
    }
    if (protected_size != 0) {
        if (protected_size < TLV_INFO_SIZE || get16(area) != MAGIC_PROTECTED ||
            get16(area + 2) != protected_size) {
            return IMAGE_BAD_PROTECTED;
        }
        const int error = walk(image, area, protected_size, true, numbers);
        if (error != IMAGE_OK) {
            return error;
        }
    }
    area += protected_size;
    left -= protected_size;
    if (left < TLV_INFO_SIZE) {
        return IMAGE_TOO_LONG;
    }
    const uint32_t size = get16(area + 2);
    if (get16(area) != MAGIC_UNPROTECTED || size < TLV_INFO_SIZE) {
        return IMAGE_BAD_TLV_AREA;
    }
    if (size > left) {
        return IMAGE_TOO_LONG;
    }
    image->hashed = IMAGE_HEADER_SIZE + image->body_size + protected_size;
    image->total = image->hashed + size;
    return walk(image, area, size, false, numbers);
}

int image_parse(struct image *image, const uint8_t *start, size_t available) {
    memset(image, 0, sizeof *image);
    uint32_t left;
    int error = parse_header(image, start, available, &left);
    if (error != IMAGE_OK) {
        return error;
    }
    struct numbers numbers = {0};
    error = parse_areas(image, left, &numbers);
    if (error != IMAGE_OK) {
        return error;
    }
    if (image->digest == NULL) {
        return IMAGE_NO_HASH;
    }
    if (image->signature == NULL || image->key_hash == NULL) {
        return IMAGE_NO_SIGNATURE;
    }
    if (numbers.counter == NULL) {
        return IMAGE_NO_COUNTER;
    }
    if (image->hardware_id.text == NULL) {
        return IMAGE_NO_HARDWARE_ID;
    }
    if (image->name.text == NULL) {
        return IMAGE_NO_NAME;
    }
    if (image->build_time.text == NULL) {
        return IMAGE_NO_BUILD_TIME;
    }
    image->security_counter = get32(numbers.counter);
    image->userdata_format = numbers.userdata_format ? get32(numbers.userdata_format) : 1;
    return IMAGE_OK;
}

const char *image_error_text(int error) {
    switch (error) {
    case IMAGE_OK:
        return "well-formed";
    case IMAGE_BLANK:
        return "erased, no image";
    case IMAGE_TRUNCATED:
        return "shorter than a header";
    case IMAGE_BAD_MAGIC:
        return "wrong magic";
    case IMAGE_BAD_HEADER_SIZE:
        return "wrong header size";
    case IMAGE_BAD_FLAGS:
        return "unsupported flags";
    case IMAGE_EMPTY:
        return "no entry point";
    case IMAGE_TOO_LONG:
        return "sizes beyond the end";
    case IMAGE_BAD_PROTECTED:
        return "bad protected TLV area";
    case IMAGE_BAD_TLV_AREA:
        return "bad TLV area";
    case IMAGE_BAD_TLV:
        return "TLV beyond its area";
    case IMAGE_BAD_TLV_LENGTH:
        return "bad TLV contents";
    case IMAGE_DUPLICATE_TLV:
        return "a TLV twice";
    case IMAGE_UNEXPECTED_TLV:
        return "a TLV in the wrong area";
    case IMAGE_NO_HASH:
        return "no hash";
    case IMAGE_NO_SIGNATURE:
        return "no signature";
    case IMAGE_NO_COUNTER:
        return "no security counter";
    case IMAGE_NO_HARDWARE_ID:
        return "no hardware id";
    case IMAGE_NO_NAME:
        return "no software name";
    case IMAGE_NO_BUILD_TIME:
        return "no build time";
    default:
        return "unknown image error";
    }
}

int image_error_result(int error) {
    switch (error) {
    case IMAGE_OK:
        return RESULT_SUCCESS;
    case IMAGE_NO_SIGNATURE:
        return RESULT_SIGNATURE;
    case IMAGE_NO_HARDWARE_ID:
        return RESULT_OTHER_HARDWARE;
    default:
        return RESULT_IMAGE_MALFORMED;
    }
}

void image_version_text(const struct image_version *version, char text[IMAGE_VERSION_TEXT_SIZE]) {
    print_text(text, IMAGE_VERSION_TEXT_SIZE, "%u.%u.%u+%u", (unsigned)version->major,
               (unsigned)version->minor, (unsigned)version->revision, (unsigned)version->build);
}

/* A decimal number at *text, which is moved behind it. */
static bool parse_number(const char **text, uint32_t maximum, uint32_t *value) {
    const char *at = *text;
    uint64_t sum = 0;
    while (*at >= '0' && *at <= '9' && sum <= maximum) {
        sum = sum * 10 + (uint32_t)(*at++ - '0');
    }
    const bool good = at != *text && sum <= maximum;
    *text = at;
    *value = good ? (uint32_t)sum : 0;
    return good;
}

bool image_version_parse(const char *text, struct image_version *version) {
    static const uint32_t maxima[] = {UINT8_MAX, UINT8_MAX, UINT16_MAX, UINT32_MAX};
    uint32_t numbers[4] = {0};
    for (size_t i = 0; i < 4 && !(i == 3 && *text == '\0'); i++) {
        if ((i > 0 && *text++ != (i == 3 ? '+' : '.')) ||
            !parse_number(&text, maxima[i], &numbers[i])) {
            return false;
        }
    }
    *version = (struct image_version){
        .major = (uint8_t)numbers[0],
        .minor = (uint8_t)numbers[1],
        .revision = (uint16_t)numbers[2],
        .build = numbers[3],
    };
    return *text == '\0';
}

bool image_text_equals(const struct image_text *field, const char *text) {
    ASSERT(field->text != NULL);
    ASSERT(field->length <= IMAGE_MAX_TEXT);
    return strlen(text) == field->length && memcmp(field->text, text, field->length) == 0;
}

void image_text_copy(const struct image_text *field, char *text, size_t size) {
    if (size == 0) {
        return;
    }
    const size_t length = field->length < size ? field->length : size - 1;
    memcpy(text, field->text, length);
    text[length] = '\0';
}
