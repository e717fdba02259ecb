#include "board/verify.h"

#include <sodium/crypto_hash_sha256.h>
#include <sodium/crypto_sign_ed25519.h>
#include <stdbool.h>
#include <string.h>

#include "board_map.h"
#include "lib/image.h"
#include "lib/result.h"
#include "trusted_key.h" /* generated: the public key that images must be signed with */

/* Bytes that are hashed between two calls of `progress`. */
#define PIECE 1024u

void verify_sha256(const uint8_t *data, uint32_t length, uint8_t digest[32],
                   void (*progress)(void *ctx), void *ctx) {
    crypto_hash_sha256_state state;
    crypto_hash_sha256_init(&state);
    while (length > 0) {
        const uint32_t piece = length < PIECE ? length : PIECE;
        crypto_hash_sha256_update(&state, data, piece);
        data += piece;
        length -= piece;
        if (progress) {
            progress(ctx);
        }
    }
    crypto_hash_sha256_final(&state, digest);
}

bool verify_signature(const uint8_t digest[32], const uint8_t signature[64]) {
    return crypto_sign_ed25519_verify_detached(signature, digest, 32, trusted_key) == 0;
}

/* Whether the program can run at all where it will lie. */
static bool fits_the_board(const struct image *image) {
    const uint32_t start = BOARD_NOR + BOARD_APPLICATION_OFFSET;
    const uint32_t body = start + BOARD_IMAGE_HEADER_SIZE;
    return (image->load_address == 0 || image->load_address == start) && image->entry % 2 == 1 &&
           image->entry >= body && image->entry - body < image->body_size &&
           image->stack % 8 == 0 && image->stack > BOARD_SRAM_BASE &&
           image->stack <= BOARD_SRAM_BASE + BOARD_SRAM_SIZE;
}

int verify_image(const uint8_t *data, uint32_t available, const struct verify_rules *rules,
                 struct image *image) {
    const int error = image_parse(image, data, available);
    if (error != IMAGE_OK) {
        return image_error_result(error);
    }
    if (image->total > rules->partition_size) {
        return RESULT_TOO_LARGE;
    }
    if (!fits_the_board(image)) {
        return RESULT_IMAGE_MALFORMED;
    }
    uint8_t digest[IMAGE_DIGEST_SIZE];
    verify_sha256(image->start, image->hashed, digest, rules->progress, rules->ctx);
    if (memcmp(digest, image->digest, sizeof digest) != 0) {
        return RESULT_IMAGE_HASH;
    }
    if (memcmp(image->key_hash, trusted_key_hash, sizeof trusted_key_hash) != 0 ||
        !verify_signature(digest, image->signature)) {
        return RESULT_SIGNATURE;
    }
    if (!image_text_equals(&image->hardware_id, rules->hardware_id)) {
        return RESULT_OTHER_HARDWARE;
    }
    return image->security_counter >= rules->minimum_counter ? RESULT_SUCCESS : RESULT_TOO_OLD;
}
