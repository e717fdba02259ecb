#include "board/seal.h"

#include <sodium/crypto_aead_chacha20poly1305.h>
#include <sodium/crypto_auth_hmacsha256.h>
#include <sodium/crypto_stream_chacha20.h>
#include <sodium/utils.h>
#include <string.h>

#define MAGIC "UNBRKUD1"
#define MAGIC_SIZE 8u
#define NONCE_SIZE (SEAL_HEAD_SIZE - MAGIC_SIZE)
#define KEY_SIZE 32u
/* Bytes that are hashed between two calls of `progress`. */
#define PIECE 1024u

_Static_assert(NONCE_SIZE == crypto_aead_chacha20poly1305_ietf_NPUBBYTES, "nonce of RFC 8439");
_Static_assert(SEAL_TAG_SIZE == crypto_aead_chacha20poly1305_ietf_ABYTES, "tag of RFC 8439");
_Static_assert(KEY_SIZE == crypto_aead_chacha20poly1305_ietf_KEYBYTES, "key of RFC 8439");
_Static_assert(KEY_SIZE == crypto_auth_hmacsha256_BYTES, "a key is a hash");

/* What is authenticated besides the data. Fixed sizes: it can be read in one way only. */
struct associated {
    uint8_t magic[MAGIC_SIZE];
    uint8_t number[4];
    uint8_t serial[TERMINAL_ID_TEXT_SIZE];
};

static void associate(struct associated *associated, const struct seal_binding *binding) {
    memset(associated, 0, sizeof *associated);
    memcpy(associated->magic, MAGIC, MAGIC_SIZE);
    for (size_t i = 0; i < sizeof associated->number; i++) {
        associated->number[i] = (uint8_t)(binding->number >> 8 * i);
    }
    memcpy(associated->serial, binding->serial, strlen(binding->serial));
}

/* A key for one purpose, from the terminal's. */
static void derive(const struct seal_binding *binding, const char *purpose, uint8_t key[KEY_SIZE]) {
    crypto_auth_hmacsha256_state state;
    crypto_auth_hmacsha256_init(&state, binding->key, TERMINAL_KEY_SIZE);
    crypto_auth_hmacsha256_update(&state, (const uint8_t *)purpose, strlen(purpose));
    crypto_auth_hmacsha256_final(&state, key);
    sodium_memzero(&state, sizeof state);
}

static void make_nonce(const struct seal_binding *binding, const struct associated *associated,
                       const uint8_t *data, size_t length, uint8_t nonce[NONCE_SIZE],
                       void (*progress)(void *ctx), void *ctx) {
    uint8_t key[KEY_SIZE];
    uint8_t hash[crypto_auth_hmacsha256_BYTES];
    crypto_auth_hmacsha256_state state;
    derive(binding, "unbrick user data nonce", key);
    crypto_auth_hmacsha256_init(&state, key, sizeof key);
    crypto_auth_hmacsha256_update(&state, (const uint8_t *)associated, sizeof *associated);
    while (length > 0) {
        const size_t piece = length < PIECE ? length : PIECE;
        crypto_auth_hmacsha256_update(&state, data, piece);
        data += piece;
        length -= piece;
        if (progress) {
            progress(ctx);
        }
    }
    crypto_auth_hmacsha256_final(&state, hash);
    memcpy(nonce, hash, NONCE_SIZE);
    sodium_memzero(&state, sizeof state);
    sodium_memzero(key, sizeof key);
}

void seal(const struct seal_binding *binding, uint8_t *data, size_t length,
          void (*progress)(void *ctx), void *ctx) {
    uint8_t *const nonce = data + MAGIC_SIZE;
    uint8_t *const body = data + SEAL_HEAD_SIZE;
    struct associated associated;
    uint8_t key[KEY_SIZE];
    associate(&associated, binding);
    memcpy(data, MAGIC, MAGIC_SIZE);
    make_nonce(binding, &associated, body, length, nonce, progress, ctx);
    derive(binding, "unbrick user data sealing", key);
    (void)crypto_aead_chacha20poly1305_ietf_encrypt_detached(body, body + length, NULL, body,
                                                             length, (const uint8_t *)&associated,
                                                             sizeof associated, NULL, nonce, key);
    sodium_memzero(key, sizeof key);
}

bool seal_open(const struct seal_binding *binding, uint8_t *data, size_t size) {
    if (size < SEAL_OVERHEAD || memcmp(data, MAGIC, MAGIC_SIZE) != 0) {
        return false;
    }
    const uint8_t *const nonce = data + MAGIC_SIZE;
    uint8_t *const body = data + SEAL_HEAD_SIZE;
    const size_t length = size - SEAL_OVERHEAD;
    struct associated associated;
    uint8_t key[KEY_SIZE];
    associate(&associated, binding);
    derive(binding, "unbrick user data sealing", key);
    const bool opened = crypto_aead_chacha20poly1305_ietf_decrypt_detached(
                            body, NULL, body, length, body + length, (const uint8_t *)&associated,
                            sizeof associated, nonce, key) == 0;
    sodium_memzero(key, sizeof key);
    return opened;
}

void seal_wipe(void *data, size_t size) {
    sodium_memzero(data, size);
}
