#include "lib/phonebook_pack.h"

#include <string.h>

#include "lib/cbor.h"

size_t phonebook_pack(const struct phonebook *book, uint8_t *buffer, size_t size,
                      phonebook_progress_fn *progress, void *ctx) {
    struct cbor_encoder encoder;
    struct phonebook_entry entry;
    cbor_encoder_init(&encoder, buffer, size);
    cbor_put_array(&encoder, 2);
    cbor_put_uint(&encoder, PHONEBOOK_PACK_VERSION);
    cbor_put_array(&encoder, book->count);
    for (uint32_t i = 0; phonebook_get(book, i, &entry); i++) {
        cbor_put_array(&encoder, 3);
        cbor_put_uint(&encoder, entry.id);
        cbor_put_text(&encoder, entry.name);
        cbor_put_text(&encoder, entry.number);
        if (progress) {
            progress(ctx);
        }
    }
    return cbor_encoder_finish(&encoder);
}

static bool read_entry(struct cbor_reader *reader, struct phonebook_entry *entry) {
    uint32_t items;
    uint32_t id;
    if (!cbor_read_array(reader, &items) || items != 3 ||
        !cbor_read_uint(reader, UINT16_MAX, &id) ||
        !cbor_read_text(reader, entry->name, sizeof entry->name) ||
        !cbor_read_text(reader, entry->number, sizeof entry->number)) {
        return false;
    }
    entry->id = (uint16_t)id;
    return phonebook_is_entry(entry);
}

bool phonebook_unpack(struct phonebook_packed *packed, const uint8_t *data, size_t length) {
    struct cbor_reader reader = {data, length};
    struct phonebook_entry entry;
    uint32_t items;
    uint32_t version;
    if (!cbor_read_array(&reader, &items) || items != 2 ||
        !cbor_read_uint(&reader, UINT32_MAX, &version) || version != PHONEBOOK_PACK_VERSION ||
        !cbor_read_array(&reader, &packed->count)) {
        return false;
    }
    packed->entries = reader.next;
    packed->size = reader.left;
    for (uint32_t i = 0; i < packed->count; i++) {
        if (!read_entry(&reader, &entry)) {
            return false;
        }
    }
    return reader.left == 0;
}

/* How many of the first `count` packed entries have the name and the number of this one. */
static uint32_t times(const struct phonebook_packed *packed, uint32_t count,
                      const struct phonebook_entry *entry) {
    struct cbor_reader reader = {packed->entries, packed->size};
    struct phonebook_entry other;
    uint32_t found = 0;
    for (uint32_t i = 0; i < count && read_entry(&reader, &other); i++) {
        found += strcmp(other.name, entry->name) == 0 && strcmp(other.number, entry->number) == 0;
    }
    return found;
}

static int store_missing(struct phonebook *book, const struct phonebook_packed *packed,
                         uint32_t *stored, phonebook_progress_fn *progress, void *ctx) {
    struct cbor_reader reader = {packed->entries, packed->size};
    struct phonebook_entry entry;
    *stored = 0;
    for (uint32_t i = 0; i < packed->count && read_entry(&reader, &entry); i++) {
        if (phonebook_count(book, &entry) < times(packed, i + 1, &entry)) {
            const int id = phonebook_put(book, &entry);
            if (id < 0) {
                return id;
            }
            (*stored)++;
        }
        if (progress) {
            progress(ctx);
        }
    }
    return PHONEBOOK_OK;
}

int phonebook_restore(struct phonebook *book, const struct phonebook_packed *packed, bool doubtful,
                      uint32_t *stored, phonebook_progress_fn *progress, void *ctx) {
    *stored = 0;
    /* An entry that power was lost on may read as there now and be gone at the next start. */
    int error = book->error != PHONEBOOK_OK ? book->error : recordlog_affirm(&book->log);
    if (error == RECORDLOG_OK && doubtful) {
        error = phonebook_rebuild(book);
    }
    if (error == RECORDLOG_OK) {
        error = store_missing(book, packed, stored, progress, ctx);
    }
    if (error == PHONEBOOK_OK && *stored > 0) {
        /* What is read back now must be all of it. */
        uint32_t more;
        error = store_missing(book, packed, &more, progress, ctx);
        error = error == PHONEBOOK_OK && more > 0 ? RECORDLOG_WRITE : error;
    }
    return error;
}
