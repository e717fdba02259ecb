/* Any bytes as an image: everything that is said of it lies inside. */
#include "lib/image.h"
#include "lib/result.h"
#include "tests/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bool inside(const struct image *image, const void *from, size_t length) {
    const uint8_t *at = from;
    return at >= image->start && at + length <= image->start + image->total;
}

static void check_text(const struct image *image, const struct image_text *text) {
    char copy[IMAGE_MAX_TEXT + 1];
    CHECK(inside(image, text->text, text->length));
    /* Covered by the hash. */
    CHECK((const uint8_t *)text->text + text->length <= image->start + image->hashed);
    image_text_copy(text, copy, sizeof copy);
    CHECK(image_text_equals(text, copy));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct image image;
    const int error = image_parse(&image, data, size);
    CHECK(strcmp(image_error_text(error), "unknown image error") != 0);
    if (error != IMAGE_OK) {
        CHECK(image_error_result(error) != RESULT_SUCCESS);
        return 0;
    }
    CHECK(image.total <= size && image.hashed < image.total);
    CHECK(inside(&image, image.digest, IMAGE_DIGEST_SIZE));
    CHECK(inside(&image, image.key_hash, IMAGE_DIGEST_SIZE));
    CHECK(inside(&image, image.signature, IMAGE_SIGNATURE_SIZE));
    check_text(&image, &image.hardware_id);
    check_text(&image, &image.name);
    check_text(&image, &image.build_time);
    /* Nothing depends on what follows the image. */
    struct image again;
    CHECK(image_parse(&again, data, image.total) == IMAGE_OK);
    CHECK(again.total == image.total);
    return 0;
}
