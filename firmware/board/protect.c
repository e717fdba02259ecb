#include "board/protect.h"

#include <sodium/crypto_aead_chacha20poly1305.h>
#include <sodium/crypto_auth_hmacsha256.h>
#include <sodium/utils.h>

_Static_assert(OSCORE_KEY == crypto_aead_chacha20poly1305_ietf_KEYBYTES, "key of RFC 8439");
_Static_assert(OSCORE_NONCE == crypto_aead_chacha20poly1305_ietf_NPUBBYTES, "nonce of RFC 8439");
_Static_assert(OSCORE_TAG == crypto_aead_chacha20poly1305_ietf_ABYTES, "tag of RFC 8439");
_Static_assert(OSCORE_MAC == crypto_auth_hmacsha256_BYTES, "a MAC is a hash");

static void hmac(const uint8_t *key, size_t key_length, const uint8_t *data, size_t length,
                 uint8_t mac[OSCORE_MAC]) {
    crypto_auth_hmacsha256_state state;
    crypto_auth_hmacsha256_init(&state, key, key_length);
    crypto_auth_hmacsha256_update(&state, data, length);
    crypto_auth_hmacsha256_final(&state, mac);
    sodium_memzero(&state, sizeof state);
}

static void seal(const uint8_t key[OSCORE_KEY], const uint8_t nonce[OSCORE_NONCE],
                 const uint8_t *associated, size_t associated_length, uint8_t *data,
                 size_t length) {
    (void)crypto_aead_chacha20poly1305_ietf_encrypt_detached(
        data, data + length, NULL, data, length, associated, associated_length, NULL, nonce, key);
}

static bool open(const uint8_t key[OSCORE_KEY], const uint8_t nonce[OSCORE_NONCE],
                 const uint8_t *associated, size_t associated_length, uint8_t *data,
                 size_t length) {
    return crypto_aead_chacha20poly1305_ietf_decrypt_detached(data, NULL, data, length,
                                                              data + length, associated,
                                                              associated_length, nonce, key) == 0;
}

const struct oscore_crypto protect_crypto = {.hmac = hmac, .seal = seal, .open = open};

void protect_wipe(void *data, size_t size) {
    sodium_memzero(data, size);
}
