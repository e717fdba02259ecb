/* Any bytes as sealed ones: they open only when nothing was changed, and what was sealed opens to
 * what it was. Linked with board/seal.c, board/sodium.c and libsodium, as on the terminal. */
#include <sodium/randombytes.h>

#include "board/seal.h"
#include "lib/phonebook_pack.h"
#include "tests/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

void randombytes_buf(void *const data, const size_t length) {
    (void)data;
    (void)length;
    abort(); /* there is no randomness on the board */
}

static const uint8_t key[TERMINAL_KEY_SIZE] = {1, 2, 3};
static const struct seal_binding binding = {.key = key, .serial = "UB-000001", .number = 7};

/* In a block of its own size, so that the sanitizer sees a step beyond it. */
static bool opens(const struct seal_binding *with, const uint8_t *data, size_t size) {
    struct phonebook_packed packed;
    uint8_t *copy = malloc(size + (size == 0));
    CHECK(copy != NULL);
    memcpy(copy, data, size);
    const bool opened = seal_open(with, copy, size);
    if (opened) {
        (void)phonebook_unpack(&packed, copy + SEAL_HEAD_SIZE, size - SEAL_OVERHEAD);
    }
    free(copy);
    return opened;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    /* Nobody guesses a tag. */
    CHECK(!opens(&binding, data, size) || size >= SEAL_OVERHEAD);
    const size_t sealed_size = size + SEAL_OVERHEAD;
    uint8_t *sealed = malloc(sealed_size);
    CHECK(sealed != NULL);
    memcpy(sealed + SEAL_HEAD_SIZE, data, size);
    seal(&binding, sealed, size, NULL, NULL);
    CHECK(opens(&binding, sealed, sealed_size));
    struct seal_binding other = binding;
    other.number++;
    CHECK(!opens(&other, sealed, sealed_size));
    other = binding;
    other.serial[0] = 'V';
    CHECK(!opens(&other, sealed, sealed_size));
    CHECK(!opens(&binding, sealed, sealed_size - 1));
    const size_t changed = size > 0 ? data[0] * sealed_size / 256 : 0;
    sealed[changed] ^= 0x10;
    CHECK(!opens(&binding, sealed, sealed_size));
    sealed[changed] ^= 0x10;
    CHECK(seal_open(&binding, sealed, sealed_size));
    CHECK(size == 0 || memcmp(sealed + SEAL_HEAD_SIZE, data, size) == 0);
    free(sealed);
    return 0;
}
