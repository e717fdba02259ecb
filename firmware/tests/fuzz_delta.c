/* Any bytes as an installed image and a differential file: the decoder stays within its areas, and
 * pieces of any length give the same. Input: length of the image (2 bytes), the image, the file. */
#include "lib/delta.h"
#include "tests/check.h"

enum { MAX_LENGTH = 2048 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Digests are of no interest here: all are zero. */
static void no_sha256(uint8_t digest[DELTA_SHA256_SIZE], const uint8_t *data, uint32_t length) {
    volatile uint8_t seen = 0;
    if (length > 0) {
        seen = data[0];
        seen = data[length - 1];
    }
    (void)seen;
    memset(digest, 0, DELTA_SHA256_SIZE);
}

/* Areas of just the size that is needed: the sanitizer sees every step beyond them. */
static int rebuild(const struct delta_header *header, const uint8_t *base, const uint8_t *file,
                   size_t length, size_t piece, uint8_t *image, uint32_t *rebuilt) {
    void *const memory = malloc(header->memory);
    CHECK(memory != NULL);
    memset(memory, 0xA5, header->memory);
    const struct delta_job job = {base,   header->base_length, image,     header->length,
                                  memory, header->memory,      no_sha256, NULL};
    int error;
    struct delta *const delta = delta_begin(&job, header, &error);
    *rebuilt = 0;
    if (delta != NULL) {
        CHECK(error == DELTA_OK);
        for (size_t at = header->size; at < length; at += piece) {
            error = delta_feed(delta, file + at, length - at < piece ? length - at : piece);
            CHECK(delta_rebuilt(delta) <= header->length);
        }
        error = delta_finish(delta);
        CHECK(delta_finish(delta) == error);
        *rebuilt = delta_rebuilt(delta);
        CHECK(error != DELTA_OK || *rebuilt == header->length);
    }
    CHECK(strcmp(delta_error_text(error), "unknown differential file error") != 0);
    free(memory);
    return error;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    if (size < 2) {
        return 0;
    }
    const size_t room = size - 2;
    size_t base_length = data[0] | (size_t)data[1] << 8;
    base_length = base_length < room ? base_length : room;
    const size_t length = room - base_length;
    struct delta_header header;
    if (delta_parse_header(&header, data + 2 + base_length, length) != DELTA_OK) {
        return 0;
    }
    if (header.base_length > base_length || header.length > MAX_LENGTH) {
        return 0;
    }
    uint8_t *const base = malloc(header.base_length);
    uint8_t *const file = malloc(length);
    uint8_t *const image = malloc(header.length);
    uint8_t *const again = malloc(header.length);
    CHECK(base != NULL && file != NULL && image != NULL && again != NULL);
    memcpy(base, data + 2, header.base_length);
    memcpy(file, data + 2 + base_length, length);
    memset(header.base_digest, 0, sizeof header.base_digest);
    memset(header.digest, 0, sizeof header.digest);
    memset(image, 0, header.length);
    memset(again, 0, header.length);
    uint32_t rebuilt;
    uint32_t rebuilt_again;
    const int error = rebuild(&header, base, file, length, length, image, &rebuilt);
    const int error_again = rebuild(&header, base, file, length, 1, again, &rebuilt_again);
    CHECK((error == DELTA_OK) == (error_again == DELTA_OK));
    CHECK(error != DELTA_OK || memcmp(image, again, header.length) == 0);
    free(base);
    free(file);
    free(image);
    free(again);
    return 0;
}
