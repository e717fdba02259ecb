/* MCUboot images: header, body, protected and unprotected TLVs, all little-endian. Parsing only: it
 * says whether the image is well-formed, hash and signature are checked elsewhere. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define IMAGE_MAGIC 0x96F3B83Du
#define IMAGE_HEADER_SIZE 0x200u
#define IMAGE_MAX_TEXT 31u          /* bytes of the text TLVs */
#define IMAGE_VERSION_TEXT_SIZE 28u /* "255.255.65535+4294967295" and a NUL */
#define IMAGE_DIGEST_SIZE 32u
#define IMAGE_SIGNATURE_SIZE 64u

enum image_error {
    IMAGE_OK = 0,
    IMAGE_BLANK = -60,     /* erased flash, no image at all */
    IMAGE_TRUNCATED = -61, /* shorter than a header */
    IMAGE_BAD_MAGIC = -62,
    IMAGE_BAD_HEADER_SIZE = -63,
    IMAGE_BAD_FLAGS = -64,      /* encrypted, compressed, not bootable, to be loaded to RAM */
    IMAGE_EMPTY = -65,          /* no room for initial SP and entry address */
    IMAGE_TOO_LONG = -66,       /* the body or the TLVs reach beyond the range */
    IMAGE_BAD_PROTECTED = -67,  /* protected TLVs: magic or size is not what the header says */
    IMAGE_BAD_TLV_AREA = -68,   /* unprotected TLVs: magic or size */
    IMAGE_BAD_TLV = -69,        /* a TLV reaches beyond its area */
    IMAGE_BAD_TLV_LENGTH = -70, /* a known TLV of the wrong length, or a text that is none */
    IMAGE_DUPLICATE_TLV = -71,
    IMAGE_UNEXPECTED_TLV = -72, /* one that must be protected is not, or the other way round */
    IMAGE_NO_HASH = -73,
    IMAGE_NO_SIGNATURE = -74, /* no signature or no key hash */
    IMAGE_NO_COUNTER = -75,
    IMAGE_NO_HARDWARE_ID = -76,
    IMAGE_NO_NAME = -77,
    IMAGE_NO_BUILD_TIME = -78,
};

struct image_version {
    uint8_t major;
    uint8_t minor;
    uint16_t revision;
    uint32_t build;
};

/* A text in the image, without a terminating NUL: 1 to IMAGE_MAX_TEXT printable ASCII characters.
 */
struct image_text {
    const char *text;
    uint32_t length;
};

struct image {
    const uint8_t *start;
    uint32_t hashed; /* bytes from `start` that the hash covers: header, body, protected TLVs */
    uint32_t total;  /* bytes from `start` to the end of the last TLV */
    uint32_t body_size;
    uint32_t load_address;
    struct image_version version;
    uint32_t security_counter;
    uint32_t userdata_format; /* in which this software keeps the user's data */
    uint32_t stack;           /* the body's first word: initial SP */
    uint32_t entry;           /* the second: entry address */
    const uint8_t *digest; /* IMAGE_DIGEST_SIZE bytes: SHA-256 of the hashed range, as it claims */
    const uint8_t *key_hash;  /* IMAGE_DIGEST_SIZE bytes: SHA-256 of the public key (DER) */
    const uint8_t *signature; /* IMAGE_SIGNATURE_SIZE bytes: Ed25519 */
    struct image_text hardware_id;
    struct image_text name;
    struct image_text build_time;
};

/* Parse what lies at `start`; never reads beyond `available` bytes. Returns an image_error; without
 * IMAGE_OK nothing of `image` may be used. */
int image_parse(struct image *image, const uint8_t *start, size_t available);

/* One line for a person, such as "wrong magic". */
const char *image_error_text(int error);

/* The number that the protocol has for it (enum result). */
int image_error_result(int error);

/* "1.1.0+0". */
void image_version_text(const struct image_version *version, char text[IMAGE_VERSION_TEXT_SIZE]);

/* The reverse, with or without the build number. False: it is no version. */
bool image_version_parse(const char *text, struct image_version *version);

bool image_text_equals(const struct image_text *field, const char *text);

/* Copies to a NUL-terminated string, cut to fit. */
void image_text_copy(const struct image_text *field, char *text, size_t size);
