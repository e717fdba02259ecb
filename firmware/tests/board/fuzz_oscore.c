/* Any bytes as what came over the link: nothing opens that was not sealed, what was sealed opens
 * once and to what it was, and no option takes the reader out of its bytes. Linked with
 * board/protect.c, board/sodium.c and libsodium, as on the terminal. */
#include <sodium/randombytes.h>

#include "board/protect.h"
#include "tests/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

void randombytes_buf(void *const data, const size_t length) {
    (void)data;
    (void)length;
    abort(); /* there is no randomness on the board */
}

static const uint8_t secret[OSCORE_MAC] = {4, 5, 6};

/* In a block of its own size, so that the sanitizer sees a step beyond it. */
static uint8_t *copy_of(const uint8_t *data, size_t size, size_t more) {
    uint8_t *copy = malloc(size + more + 1);
    CHECK(copy != NULL);
    memcpy(copy, data, size);
    return copy;
}

/* The first byte is the length of the option; the rest is the ciphertext. */
static void try_anything(struct oscore_context *context, const uint8_t *data, size_t size) {
    const size_t length = size > 0 && data[0] < size ? data[0] : size;
    uint8_t *value = copy_of(data, length, 0);
    uint8_t *rest = copy_of(data + length, size - length, 0);
    struct oscore_option option;
    if (oscore_read_option(&option, value, length)) {
        CHECK(option.number <= OSCORE_MAX_NUMBER);
        CHECK(option.kid_length + option.id_context_length <= length);
        CHECK(!oscore_open_request(context, &option, rest, size - length));
        CHECK(!oscore_open_reply(context, 7, &option, rest, size - length));
    }
    free(rest);
    free(value);
}

/* A reply of this terminal to itself as the server: the same keys, the other way round. */
static void check_request(struct oscore_context *context, const uint8_t *data, size_t size,
                          uint64_t number) {
    struct oscore_context server = *context;
    memcpy(server.sender_key, context->recipient_key, OSCORE_KEY);
    memcpy(server.recipient_key, context->sender_key, OSCORE_KEY);
    const uint8_t kid = 1;
    const struct oscore_option option = {
        .has_number = true, .number = number, .has_kid = true, .kid_length = 1, .kid = &kid};
    const size_t sealed_size = size + OSCORE_TAG;
    uint8_t *sealed = copy_of(data, size, OSCORE_TAG);
    oscore_seal_reply(&server, number, sealed, size); /* nonce, key and AAD of a request */
    uint8_t *changed = copy_of(sealed, sealed_size, 0);
    changed[data[0] * sealed_size / 256] ^= 0x10;
    CHECK(!oscore_open_request(context, &option, changed, sealed_size));
    free(changed);
    uint8_t *again = copy_of(sealed, sealed_size, 0);
    CHECK(oscore_open_request(context, &option, sealed, sealed_size));
    CHECK(memcmp(sealed, data, size) == 0);
    CHECK(!oscore_open_request(context, &option, again, sealed_size));
    free(again);
    free(sealed);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    struct oscore_context context;
    oscore_init(&context, &protect_crypto, secret, "UB-000001", 3);
    try_anything(&context, data, size);
    context.window = (struct oscore_window){.open = true, .highest = 7, .seen = UINT32_MAX};
    try_anything(&context, data, size);
    if (size > 0) {
        check_request(&context, data, size, 8 + (uint64_t)data[0] * data[size - 1]);
    }
    return 0;
}
