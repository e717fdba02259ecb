/* Any bytes as a packed phonebook: what is taken can be stored, once, and packs to as much again.
 */
#include "lib/phonebook_pack.h"
#include "tests/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { BLOCK = 4096, SIZE = 2 * BLOCK, CAPACITY = 16 };

static uint8_t cells[SIZE];

static int erase(void *ctx, uint32_t offset) {
    (void)ctx;
    memset(cells + offset, 0xFF, BLOCK);
    return 0;
}

static int program(void *ctx, uint32_t offset, const void *data, uint32_t length) {
    (void)ctx;
    CHECK(offset <= SIZE && length <= SIZE - offset);
    for (uint32_t i = 0; i < length; i++) {
        cells[offset + i] &= ((const uint8_t *)data)[i];
    }
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static const struct flash flash = {
        .base = cells, .block_size = BLOCK, .erase = erase, .program = program};
    static uint32_t index[CAPACITY];
    static uint8_t again[CAPACITY * 64 + 16];
    struct phonebook_packed packed;
    struct phonebook book;
    uint32_t stored;
    if (!phonebook_unpack(&packed, data, size)) {
        return 0;
    }
    CHECK(packed.entries >= data && packed.entries + packed.size == data + size);
    memset(cells, 0xFF, sizeof cells);
    CHECK(phonebook_mount(&book, &flash, 0, SIZE, PHONEBOOK_NUMBER_FIRST, index, CAPACITY) == 0);
    const int error = phonebook_restore(&book, &packed, packed.count % 2, &stored, NULL, NULL);
    CHECK(stored == book.count && stored <= packed.count);
    CHECK(error == (packed.count > CAPACITY ? PHONEBOOK_NO_ROOM : PHONEBOOK_OK));
    if (error == PHONEBOOK_OK) {
        CHECK(stored == packed.count);
        CHECK(phonebook_restore(&book, &packed, packed.count % 2, &stored, NULL, NULL) == 0 &&
              stored == 0);
    }
    const size_t length = phonebook_pack(&book, again, sizeof again, NULL, NULL);
    CHECK(length > 0 && phonebook_unpack(&packed, again, length) && packed.count == book.count);
    return 0;
}
