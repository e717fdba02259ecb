/* What the Python tests need besides lib/oscore.h to compare it with other implementations. */
#include <sodium/randombytes.h>
#include <stdlib.h>

#include "board/protect.h"

size_t shim_context_size(void);
const struct oscore_crypto *shim_crypto(void);
bool shim_open(struct oscore_context *context, bool request, uint64_t number, const uint8_t *option,
               size_t option_length, uint8_t *data, size_t length);
bool shim_derive(const uint8_t *secret, size_t secret_length, const uint8_t *salt,
                 size_t salt_length, const uint8_t *id_context, size_t id_context_length,
                 uint8_t algorithm, const uint8_t *id, size_t id_length, const char *what,
                 uint8_t *out, size_t length);

void randombytes_buf(void *const data, const size_t length) {
    (void)data;
    (void)length;
    abort(); /* there is no randomness on the board */
}

size_t shim_context_size(void) {
    return sizeof(struct oscore_context);
}

const struct oscore_crypto *shim_crypto(void) {
    return &protect_crypto;
}

bool shim_open(struct oscore_context *context, bool request, uint64_t number, const uint8_t *option,
               size_t option_length, uint8_t *data, size_t length) {
    struct oscore_option read;
    return oscore_read_option(&read, option, option_length) &&
           (request ? oscore_open_request(context, &read, data, length)
                    : oscore_open_reply(context, number, &read, data, length));
}

bool shim_derive(const uint8_t *secret, size_t secret_length, const uint8_t *salt,
                 size_t salt_length, const uint8_t *id_context, size_t id_context_length,
                 uint8_t algorithm, const uint8_t *id, size_t id_length, const char *what,
                 uint8_t *out, size_t length) {
    const struct oscore_derivation from = {
        .secret = secret,
        .secret_length = secret_length,
        .salt = salt,
        .salt_length = salt_length,
        .id_context = id_context,
        .id_context_length = id_context_length,
        .algorithm = algorithm,
    };
    return oscore_derive(&from, &protect_crypto, id, id_length, what, out, length);
}
