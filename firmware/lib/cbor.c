#include "lib/cbor.h"

#include <string.h>

#include "lib/assert.h"
#include "lib/text.h"

enum major { UINT = 0, NEGATIVE = 1, BYTES = 2, TEXT = 3, ARRAY = 4, MAP = 5, TAG = 6, SIMPLE = 7 };

/* ---- Encoder ---- */

void cbor_encoder_init(struct cbor_encoder *encoder, uint8_t *buffer, size_t size) {
    *encoder = (struct cbor_encoder){.buffer = buffer, .size = size};
}

static void put(struct cbor_encoder *encoder, const void *data, size_t length) {
    ASSERT(encoder->length <= encoder->size);
    ASSERT(data != NULL || length == 0);
    if (encoder->overflow || length > encoder->size - encoder->length) {
        encoder->overflow = true;
        return;
    }
    if (length > 0) {
        memcpy(encoder->buffer + encoder->length, data, length);
        encoder->length += length;
    }
}

static void put_head(struct cbor_encoder *encoder, enum major major, uint64_t value) {
    uint8_t head[9];
    size_t extra = 0;
    uint32_t info = (uint32_t)value;
    if (value > 23) {
        const uint32_t log = value <= UINT8_MAX    ? 0
                             : value <= UINT16_MAX ? 1
                             : value <= UINT32_MAX ? 2
                                                   : 3;
        extra = (size_t)1 << log;
        info = 24 + log;
    }
    head[0] = (uint8_t)((uint32_t)major << 5 | info);
    for (size_t i = 0; i < extra; i++) {
        head[extra - i] = (uint8_t)(value >> (8 * i));
    }
    put(encoder, head, 1 + extra);
}

void cbor_put_map(struct cbor_encoder *encoder, size_t pairs) {
    put_head(encoder, MAP, pairs);
}

void cbor_put_array(struct cbor_encoder *encoder, size_t items) {
    put_head(encoder, ARRAY, items);
}

void cbor_put_uint(struct cbor_encoder *encoder, uint64_t value) {
    put_head(encoder, UINT, value);
}

void cbor_put_bytes(struct cbor_encoder *encoder, const void *data, size_t length) {
    put_head(encoder, BYTES, length);
    put(encoder, data, length);
}

void cbor_put_text(struct cbor_encoder *encoder, const char *text) {
    const size_t length = strlen(text);
    put_head(encoder, TEXT, length);
    put(encoder, text, length);
}

void cbor_pair_uint(struct cbor_encoder *encoder, uint64_t key, uint64_t value) {
    cbor_put_uint(encoder, key);
    cbor_put_uint(encoder, value);
}

void cbor_pair_bytes(struct cbor_encoder *encoder, uint64_t key, const void *data, size_t length) {
    cbor_put_uint(encoder, key);
    cbor_put_bytes(encoder, data, length);
}

void cbor_pair_text(struct cbor_encoder *encoder, uint64_t key, const char *text) {
    cbor_put_uint(encoder, key);
    cbor_put_text(encoder, text);
}

size_t cbor_encoder_finish(const struct cbor_encoder *encoder) {
    ASSERT(encoder->length <= encoder->size);
    return encoder->overflow ? 0 : encoder->length;
}

/* ---- Decoder ---- */

struct item {
    enum major major;
    uint64_t value;      /* number, length or count */
    const uint8_t *data; /* of a string */
};

/* Reads one head, and a string's bytes with it. */
static enum cbor_error read_item(struct cbor_reader *reader, struct item *item) {
    ASSERT(reader->next != NULL || reader->left == 0);
    if (reader->left == 0) {
        return CBOR_TRUNCATED;
    }
    const uint32_t info = reader->next[0] & 31u;
    item->major = (enum major)(reader->next[0] >> 5);
    item->value = info;
    item->data = NULL;
    reader->next++;
    reader->left--;
    if (info > 27) { /* reserved, or indefinite length */
        return CBOR_MALFORMED;
    }
    if (info > 23) {
        const size_t extra = (size_t)1 << (info - 24);
        if (reader->left < extra) {
            return CBOR_TRUNCATED;
        }
        item->value = 0;
        for (size_t i = 0; i < extra; i++) {
            item->value = item->value << 8 | reader->next[i];
        }
        reader->next += extra;
        reader->left -= extra;
        if (item->major == SIMPLE && info == 24 && item->value < 32) {
            return CBOR_MALFORMED;
        }
    }
    if (item->major == BYTES || item->major == TEXT) {
        if (item->value > reader->left) {
            return CBOR_TRUNCATED;
        }
        const size_t length = (size_t)item->value;
        if (item->major == TEXT && !text_is_utf8(reader->next, length)) {
            return CBOR_MALFORMED;
        }
        item->data = reader->next;
        reader->next += length;
        reader->left -= length;
    }
    return CBOR_OK;
}

bool cbor_read_array(struct cbor_reader *reader, uint32_t *count) {
    struct item item;
    /* An item takes at least a byte. */
    if (read_item(reader, &item) != CBOR_OK || item.major != ARRAY || item.value > reader->left ||
        item.value > UINT32_MAX) {
        return false;
    }
    *count = (uint32_t)item.value;
    return true;
}

bool cbor_read_uint(struct cbor_reader *reader, uint32_t maximum, uint32_t *value) {
    struct item item;
    if (read_item(reader, &item) != CBOR_OK || item.major != UINT || item.value > maximum) {
        return false;
    }
    *value = (uint32_t)item.value;
    return true;
}

bool cbor_read_text(struct cbor_reader *reader, char *text, size_t size) {
    ASSERT(text != NULL);
    ASSERT(size > 0);
    struct item item;
    if (read_item(reader, &item) != CBOR_OK || item.major != TEXT || item.value >= size ||
        memchr(item.data, 0, (size_t)item.value) != NULL) {
        return false;
    }
    memcpy(text, item.data, (size_t)item.value);
    text[item.value] = '\0';
    return true;
}

/* Skips what belongs to an item whose head has been read. */
static enum cbor_error skip_contents(struct cbor_reader *reader, struct item item) {
    uint64_t pending[CBOR_MAX_DEPTH]; /* items still to come at each level */
    size_t depth = 0;
    for (;;) {
        if (item.major == ARRAY || item.major == MAP || item.major == TAG) {
            /* An item takes at least a byte: a count beyond that ends in CBOR_TRUNCATED anyway, and
             * below it doubling it for a map cannot overflow. */
            if (item.major != TAG && item.value > reader->left) {
                return CBOR_TRUNCATED;
            }
            if (depth == CBOR_MAX_DEPTH) {
                return CBOR_DEPTH;
            }
            pending[depth++] = item.major == TAG   ? 1
                               : item.major == MAP ? item.value * 2
                                                   : item.value;
        }
        while (depth > 0 && pending[depth - 1] == 0) {
            depth--;
        }
        if (depth == 0) {
            return CBOR_OK;
        }
        pending[depth - 1]--;
        const enum cbor_error error = read_item(reader, &item);
        if (error != CBOR_OK) {
            return error;
        }
    }
}

static enum cbor_error take(struct cbor_field *field, const struct item *item) {
    static const enum major majors[] = {
        [CBOR_UINT] = UINT, [CBOR_BYTES] = BYTES, [CBOR_TEXT] = TEXT};
    ASSERT(field->kind == CBOR_UINT || field->kind == CBOR_BYTES || field->kind == CBOR_TEXT);
    ASSERT(field->minimum <= field->maximum);
    if (field->present) {
        return CBOR_DUPLICATE;
    }
    if (item->major != majors[field->kind]) {
        return CBOR_KIND;
    }
    if (item->value < field->minimum || item->value > field->maximum) {
        return CBOR_RANGE;
    }
    field->present = true;
    if (field->kind == CBOR_UINT) {
        field->number = item->value;
    } else {
        field->data = item->data;
        field->length = (size_t)item->value;
    }
    return CBOR_OK;
}

static struct cbor_field *find(struct cbor_field *fields, size_t count, uint64_t key) {
    for (size_t i = 0; i < count; i++) {
        if (fields[i].key == key) {
            return &fields[i];
        }
    }
    return NULL;
}

static enum cbor_error decode_pair(struct cbor_reader *reader, struct cbor_field *fields,
                                   size_t count) {
    struct item item;
    enum cbor_error error = read_item(reader, &item);
    if (error != CBOR_OK) {
        return error;
    }
    if (item.major != UINT) {
        return CBOR_KEY;
    }
    struct cbor_field *field = find(fields, count, item.value);
    error = read_item(reader, &item);
    if (error != CBOR_OK) {
        return error;
    }
    return field != NULL ? take(field, &item) : skip_contents(reader, item);
}

enum cbor_error cbor_decode_map(const uint8_t *data, size_t length, struct cbor_field *fields,
                                size_t count) {
    ASSERT(data != NULL || length == 0);
    ASSERT(fields != NULL || count == 0);
    for (size_t i = 0; i < count; i++) {
        fields[i].present = false;
        fields[i].number = 0;
        fields[i].data = NULL;
        fields[i].length = 0;
    }
    struct cbor_reader reader = {data, length};
    struct item map;
    enum cbor_error error = read_item(&reader, &map);
    if (error != CBOR_OK) {
        return error;
    }
    if (map.major != MAP) {
        return CBOR_NOT_A_MAP;
    }
    for (uint64_t i = 0; i < map.value; i++) {
        error = decode_pair(&reader, fields, count);
        if (error != CBOR_OK) {
            return error;
        }
    }
    if (reader.left != 0) {
        return CBOR_TRAILING;
    }
    for (size_t i = 0; i < count; i++) {
        if (fields[i].required && !fields[i].present) {
            return CBOR_MISSING;
        }
    }
    return CBOR_OK;
}

bool cbor_copy_text(const struct cbor_field *field, char *text, size_t size) {
    if (size == 0) {
        return false;
    }
    text[0] = '\0';
    if (!field->present || field->kind != CBOR_TEXT || field->length >= size ||
        (field->length > 0 && memchr(field->data, 0, field->length) != NULL)) {
        return false;
    }
    if (field->length > 0) {
        memcpy(text, field->data, field->length);
    }
    text[field->length] = '\0';
    return true;
}
