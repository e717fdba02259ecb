/* Sealing data so that only this terminal can read it, and nobody can change it unseen
 * (docs/firmware.md, "The user's data"; docs/adr/0017-sealed-on-the-terminal.md).
 *
 * The cryptography is libsodium's (see harness/unbrick/firmware/build.py for where it comes from):
 * ChaCha20-Poly1305 of RFC 8439, with a nonce that is a keyed hash of all that is sealed. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "board/terminal_id.h"

#define SEAL_HEAD_SIZE 20u /* magic with the version, nonce: before the data */
#define SEAL_TAG_SIZE 16u  /* behind it */
#define SEAL_OVERHEAD (SEAL_HEAD_SIZE + SEAL_TAG_SIZE)

/* What a seal is bound to: with any other key, serial or number it does not open. */
struct seal_binding {
    const uint8_t *key;                 /* TERMINAL_KEY_SIZE bytes */
    char serial[TERMINAL_ID_TEXT_SIZE]; /* NUL-terminated */
    uint32_t number;                    /* of the update */
};

/* Seals the `length` bytes at `data + SEAL_HEAD_SIZE` in place; head and tag come around them. The
 * same data and binding always make the same bytes. `progress` is called every few milliseconds,
 * but not during the cipher itself; may be NULL. */
void seal(const struct seal_binding *binding, uint8_t *data, size_t length,
          void (*progress)(void *ctx), void *ctx);

/* Opens `size` sealed bytes in place: then `size - SEAL_OVERHEAD` bytes are at
 * `data + SEAL_HEAD_SIZE`. False: not sealed like this, or not with this binding; the data is gone.
 */
bool seal_open(const struct seal_binding *binding, uint8_t *data, size_t size);

/* Overwrites what must not stay; the compiler does not leave it out. */
void seal_wipe(void *data, size_t size);
