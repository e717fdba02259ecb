#include "lib/phonebook.h"

#include <string.h>

#include "lib/assert.h"
#include "lib/text.h"

#define MAGIC 0x4B424850u /* "PHBK" in the flash */
#define PAYLOAD_SIZE 60u

enum record_kind { RECORD_ADD = 1, RECORD_DELETE = 2 };

/* Where the fields are in a record; the ID is little-endian, strings have their length in front. */
enum { AT_KIND = 0, AT_ID = 2, AT_FIRST = 4 };

static uint32_t at_name(const struct phonebook *book) {
    return book->log.config.format == PHONEBOOK_NAME_FIRST ? AT_FIRST
                                                           : AT_FIRST + 1 + PHONEBOOK_MAX_NUMBER;
}

static uint32_t at_number(const struct phonebook *book) {
    return book->log.config.format == PHONEBOOK_NUMBER_FIRST ? AT_FIRST
                                                             : AT_FIRST + 1 + PHONEBOOK_MAX_NAME;
}

static uint16_t record_id(const uint8_t *record) {
    return (uint16_t)(record[AT_ID] | record[AT_ID + 1] << 8);
}

static bool is_number(const char *number, size_t length) {
    if (length == 0 || length > PHONEBOOK_MAX_NUMBER) {
        return false;
    }
    for (size_t i = 0; i < length; i++) {
        const char c = number[i];
        if ((c < '0' || c > '9') && c != '+' && c != '*' && c != '#') {
            return false;
        }
    }
    return true;
}

static bool is_name(const char *name, size_t length) {
    return length > 0 && length <= PHONEBOOK_MAX_NAME && text_is_printable(name, length);
}

/* Whether a record whose CRC is right also makes sense. */
static bool is_entry(const struct phonebook *book, const uint8_t *record) {
    const uint8_t *name = record + at_name(book);
    const uint8_t *number = record + at_number(book);
    return record_id(record) != 0 && is_name((const char *)name + 1, name[0]) &&
           is_number((const char *)number + 1, number[0]);
}

static const uint8_t *record_at(const struct phonebook *book, uint32_t position) {
    ASSERT(book->error == PHONEBOOK_OK);
    ASSERT(position < book->count);
    return recordlog_payload(&book->log, book->index[position]);
}

/* The position of the entry with this ID, or `count`. */
static uint32_t position_of(const struct phonebook *book, uint16_t id) {
    uint32_t position = 0;
    while (position < book->count && record_id(record_at(book, position)) != id) {
        position++;
    }
    return position;
}

static void forget(struct phonebook *book, uint32_t position) {
    ASSERT(book->count <= book->capacity);
    ASSERT(position < book->count);
    book->count--;
    memmove(book->index + position, book->index + position + 1,
            (book->count - position) * sizeof book->index[0]);
}

/* Applies one record to the index. */
static int apply(struct phonebook *book, uint32_t offset) {
    const uint8_t *record = recordlog_payload(&book->log, offset);
    const bool add = record[AT_KIND] == RECORD_ADD && is_entry(book, record);
    if (!add && record[AT_KIND] != RECORD_DELETE) {
        return PHONEBOOK_OK;
    }
    const uint32_t position = position_of(book, record_id(record));
    if (position < book->count) {
        forget(book, position);
    }
    if (add) {
        if (book->count == book->capacity) {
            return PHONEBOOK_NO_ROOM;
        }
        book->index[book->count++] = offset;
    }
    return PHONEBOOK_OK;
}

static int load(struct phonebook *book) {
    book->count = 0;
    for (uint32_t offset = recordlog_next(&book->log, RECORDLOG_NONE); offset != RECORDLOG_NONE;
         offset = recordlog_next(&book->log, offset)) {
        const int error = apply(book, offset);
        if (error != PHONEBOOK_OK) {
            return error;
        }
    }
    return PHONEBOOK_OK;
}

int phonebook_mount(struct phonebook *book, const struct flash *flash, uint32_t offset,
                    uint32_t size, enum phonebook_format format, uint32_t *index,
                    uint32_t capacity) {
    ASSERT(index != NULL && capacity > 0);
    ASSERT(format == PHONEBOOK_NAME_FIRST || format == PHONEBOOK_NUMBER_FIRST);
    const struct recordlog_config config = {
        .offset = offset,
        .size = size,
        .magic = MAGIC,
        .format = format,
        .payload_size = PAYLOAD_SIZE,
    };
    *book = (struct phonebook){.index = index, .capacity = capacity};
    book->error = recordlog_mount(&book->log, flash, &config);
    if (book->error == PHONEBOOK_OK) {
        book->error = load(book);
    }
    return book->error;
}

static bool is_live(void *ctx, const struct recordlog *log, uint32_t offset) {
    const struct phonebook *book = ctx;
    (void)log;
    for (uint32_t i = 0; i < book->count; i++) {
        if (book->index[i] == offset) {
            return true;
        }
    }
    return false;
}

int phonebook_rebuild(struct phonebook *book) {
    if (book->error != PHONEBOOK_OK) {
        return book->error;
    }
    const int error =
        book->log.half != RECORDLOG_NONE ? recordlog_compact(&book->log, is_live, book) : 0;
    return error == RECORDLOG_OK ? load(book) : error;
}

/* Appends a record, after a compaction when there is no room, and applies it to the index. */
static int append(struct phonebook *book, const uint8_t *record) {
    int error = recordlog_append(&book->log, record);
    if (error == RECORDLOG_FULL) {
        error = phonebook_rebuild(book);
        if (error == RECORDLOG_OK) {
            error = recordlog_append(&book->log, record);
        }
    }
    return error == RECORDLOG_OK ? apply(book, book->log.last) : error;
}

static uint16_t free_id(const struct phonebook *book) {
    uint16_t id = 1;
    while (position_of(book, id) < book->count) {
        id++;
    }
    return id;
}

static void put_text(uint8_t *field, const char *text, size_t length) {
    ASSERT(length <= PHONEBOOK_MAX_NAME);
    field[0] = (uint8_t)length;
    memcpy(field + 1, text, length);
}

static void get_text(const uint8_t *field, char *text) {
    memcpy(text, field + 1, field[0]);
    text[field[0]] = '\0';
}

static bool is_text(const uint8_t *field, const char *text, size_t length) {
    return field[0] == length && memcmp(field + 1, text, length) == 0;
}

/* Adds an entry; `id` 0 stands for any. */
static int put(struct phonebook *book, uint16_t id, const char *name, const char *number) {
    const size_t name_length = strlen(name);
    const size_t number_length = strlen(number);
    if (book->error != PHONEBOOK_OK) {
        return book->error;
    }
    if (!is_name(name, name_length)) {
        return PHONEBOOK_BAD_NAME;
    }
    if (!is_number(number, number_length)) {
        return PHONEBOOK_BAD_NUMBER;
    }
    /* Half of the slots at most, so that a compaction always makes room for a while. */
    if (book->count >= book->capacity || book->count >= recordlog_slots(&book->log) / 2 ||
        book->count >= UINT16_MAX) {
        return PHONEBOOK_NO_ROOM;
    }
    if (id == 0 || position_of(book, id) < book->count) {
        id = free_id(book);
    }
    uint8_t record[PAYLOAD_SIZE] = {[AT_KIND] = RECORD_ADD};
    record[AT_ID] = (uint8_t)id;
    record[AT_ID + 1] = (uint8_t)(id >> 8);
    put_text(record + at_name(book), name, name_length);
    put_text(record + at_number(book), number, number_length);
    const int error = append(book, record);
    return error == PHONEBOOK_OK ? id : error;
}

int phonebook_add(struct phonebook *book, const char *name, const char *number) {
    return put(book, 0, name, number);
}

int phonebook_put(struct phonebook *book, const struct phonebook_entry *entry) {
    return put(book, entry->id, entry->name, entry->number);
}

bool phonebook_is_entry(const struct phonebook_entry *entry) {
    return entry->id != 0 && is_name(entry->name, strlen(entry->name)) &&
           is_number(entry->number, strlen(entry->number));
}

uint32_t phonebook_count(const struct phonebook *book, const struct phonebook_entry *entry) {
    const size_t name_length = strlen(entry->name);
    const size_t number_length = strlen(entry->number);
    uint32_t count = 0;
    for (uint32_t position = 0; position < book->count; position++) {
        const uint8_t *record = record_at(book, position);
        count += is_text(record + at_number(book), entry->number, number_length) &&
                 is_text(record + at_name(book), entry->name, name_length);
    }
    return count;
}

int phonebook_delete(struct phonebook *book, uint16_t id) {
    if (book->error != PHONEBOOK_OK) {
        return book->error;
    }
    if (position_of(book, id) == book->count) {
        return PHONEBOOK_NO_ENTRY;
    }
    uint8_t record[PAYLOAD_SIZE] = {[AT_KIND] = RECORD_DELETE};
    record[AT_ID] = (uint8_t)id;
    record[AT_ID + 1] = (uint8_t)(id >> 8);
    return append(book, record);
}

bool phonebook_get(const struct phonebook *book, uint32_t position, struct phonebook_entry *entry) {
    if (position >= book->count) {
        return false;
    }
    const uint8_t *record = record_at(book, position);
    entry->id = record_id(record);
    get_text(record + at_name(book), entry->name);
    get_text(record + at_number(book), entry->number);
    return true;
}

bool phonebook_find(const struct phonebook *book, uint16_t id, struct phonebook_entry *entry) {
    return phonebook_get(book, position_of(book, id), entry);
}

const char *phonebook_error_text(int error) {
    switch (error) {
    case PHONEBOOK_BAD_NAME:
        return "a name has 1 to 31 bytes and no control characters";
    case PHONEBOOK_BAD_NUMBER:
        return "a number has 1 to 23 of 0-9 + * #";
    case PHONEBOOK_NO_ENTRY:
        return "no entry has this ID";
    case PHONEBOOK_NO_ROOM:
        return "the phonebook is full";
    default:
        return recordlog_error_text(error);
    }
}
