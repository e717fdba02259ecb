/* Whether an image may run on this terminal: hash, signature, hardware, age, size.
 *
 * The cryptography is libsodium's (see harness/unbrick/firmware/build.py for where it comes from).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct image; /* lib/image.h */

struct verify_rules {
    const char *hardware_id;     /* must be the image's */
    uint32_t minimum_counter;    /* the image's security counter must not be less */
    uint32_t partition_size;     /* bytes that header, body and TLVs may take together */
    void (*progress)(void *ctx); /* called every few milliseconds while hashing (drain the UARTs);
                                    may be NULL */
    void *ctx;
};

/* Parses the image at `data`, of which at most `available` bytes may be read, and checks it.
 * Returns a result (lib/result.h): 0, 2, 8, 9, 10, 11 or 12. `image` is filled as far as parsing
 * got; its contents may be believed only when the result is 0. */
int verify_image(const uint8_t *data, uint32_t available, const struct verify_rules *rules,
                 struct image *image);

/* Whether the key that images must be signed with has signed this digest. */
bool verify_signature(const uint8_t digest[32], const uint8_t signature[64]);

/* SHA-256 of a range, in pieces, calling `progress` in between (may be NULL). */
void verify_sha256(const uint8_t *data, uint32_t length, uint8_t digest[32],
                   void (*progress)(void *ctx), void *ctx);
