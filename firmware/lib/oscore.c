#include "lib/oscore.h"

#include <string.h>

#include "lib/assert.h"

/* Of the option (RFC 8613 §6.1). */
#define FLAG_RESERVED 0xE0u
#define FLAG_ID_CONTEXT 0x10u
#define FLAG_KID 0x08u
#define FLAG_NUMBER_LENGTH 0x07u

#define MAX_NUMBER_LENGTH 5u
#define WINDOW_SIZE 32u

/* Bytes of the `info` of HKDF: an array of id (7 at most), ID Context, algorithm, text, length. */
#define MAX_ID 7u
#define MAX_INFO (1u + 1u + MAX_ID + 2u + OSCORE_MAX_ID_CONTEXT + 2u + 4u + 2u)

static const uint8_t server_id[] = {0x01};

/* ---- CBOR (RFC 8949), as little of it as is needed ---- */

enum major { UNSIGNED = 0x00, BYTES = 0x40, TEXT = 0x60, ARRAY = 0x80 };

static size_t put_head(uint8_t *at, enum major major, uint8_t value) {
    if (value < 24) {
        at[0] = (uint8_t)(major | value);
        return 1;
    }
    at[0] = (uint8_t)(major | 24u);
    at[1] = value;
    return 2;
}

static size_t put_string(uint8_t *at, enum major major, const void *data, size_t length) {
    const size_t head = put_head(at, major, (uint8_t)length);
    if (length > 0) {
        memcpy(at + head, data, length);
    }
    return head + length;
}

/* ---- Numbers ---- */

/* A Partial IV has no zeros in front, but one byte at least. */
static size_t put_number(uint8_t *at, uint64_t number) {
    size_t length = 1;
    while (length < MAX_NUMBER_LENGTH && number >> 8 * length != 0) {
        length++;
    }
    for (size_t i = 0; i < length; i++) {
        at[i] = (uint8_t)(number >> 8 * (length - 1 - i));
    }
    return length;
}

bool oscore_take_number(struct oscore_context *context, uint64_t *number) {
    if (context->next >= context->end) {
        return false;
    }
    *number = context->next++;
    return true;
}

/* ---- Keys, nonces, what is authenticated ---- */

bool oscore_derive(const struct oscore_derivation *from, const struct oscore_crypto *crypto,
                   const uint8_t *id, size_t id_length, const char *what, uint8_t *out,
                   size_t length) {
    static const uint8_t no_salt[OSCORE_MAC];
    static const uint8_t nil = 0xF6;
    uint8_t extracted[OSCORE_MAC];
    uint8_t expanded[OSCORE_MAC];
    uint8_t info[MAX_INFO + 1];
    if (id_length > MAX_ID || from->id_context_length > OSCORE_MAX_ID_CONTEXT ||
        length > sizeof expanded || strlen(what) > 3) {
        return false;
    }
    size_t used = put_head(info, ARRAY, 5);
    used += put_string(info + used, BYTES, id, id_length);
    if (from->id_context != NULL) {
        used += put_string(info + used, BYTES, from->id_context, from->id_context_length);
    } else {
        info[used++] = nil;
    }
    used += put_head(info + used, UNSIGNED, from->algorithm);
    used += put_string(info + used, TEXT, what, strlen(what));
    used += put_head(info + used, UNSIGNED, (uint8_t)length);
    info[used++] = 1; /* the first block, and the last */
    /* Without a salt it is as many zeros as a hash has bytes (RFC 5869 §2.2). */
    const bool salted = from->salt_length > 0;
    crypto->hmac(salted ? from->salt : no_salt, salted ? from->salt_length : sizeof no_salt,
                 from->secret, from->secret_length, extracted);
    crypto->hmac(extracted, sizeof extracted, info, used, expanded);
    memcpy(out, expanded, length);
    return true;
}

void oscore_nonce(const uint8_t *common_iv, size_t length, const uint8_t *id, size_t id_length,
                  uint64_t number, uint8_t *nonce) {
    ASSERT(length >= MAX_NUMBER_LENGTH + 1 && id_length <= length - MAX_NUMBER_LENGTH - 1);
    ASSERT(number <= OSCORE_MAX_NUMBER);
    memset(nonce, 0, length);
    nonce[0] = (uint8_t)id_length;
    for (size_t i = 0; i < id_length; i++) {
        nonce[length - MAX_NUMBER_LENGTH - id_length + i] = id[i];
    }
    for (size_t i = 0; i < MAX_NUMBER_LENGTH; i++) {
        nonce[length - 1 - i] = (uint8_t)(number >> 8 * i);
    }
    for (size_t i = 0; i < length; i++) {
        nonce[i] ^= common_iv[i];
    }
}

size_t oscore_associate(uint8_t algorithm, const uint8_t *kid, size_t kid_length, uint64_t number,
                        uint8_t associated[OSCORE_MAX_ASSOCIATED]) {
    ASSERT(kid_length <= 1);
    uint8_t external[16];
    uint8_t partial_iv[MAX_NUMBER_LENGTH];
    size_t used = put_head(external, ARRAY, 5);
    used += put_head(external + used, UNSIGNED, 1); /* version of OSCORE */
    used += put_head(external + used, ARRAY, 1);
    used += put_head(external + used, UNSIGNED, algorithm);
    used += put_string(external + used, BYTES, kid, kid_length);
    used += put_string(external + used, BYTES, partial_iv, put_number(partial_iv, number));
    used += put_string(external + used, BYTES, NULL, 0); /* no options of class I */

    size_t length = put_head(associated, ARRAY, 3);
    length += put_string(associated + length, TEXT, "Encrypt0", 8);
    length += put_string(associated + length, BYTES, NULL, 0);
    length += put_string(associated + length, BYTES, external, used);
    return length;
}

void oscore_init(struct oscore_context *context, const struct oscore_crypto *crypto,
                 const uint8_t *secret, const char *id_context, uint32_t start) {
    *context = (struct oscore_context){.crypto = crypto, .id_context_length = strlen(id_context)};
    ASSERT(context->id_context_length <= OSCORE_MAX_ID_CONTEXT);
    ASSERT(start < 1u << OSCORE_NUMBER_BITS);
    memcpy(context->id_context, id_context, context->id_context_length);
    const struct oscore_derivation from = {
        .secret = secret,
        .secret_length = OSCORE_MAC,
        .id_context = context->id_context,
        .id_context_length = context->id_context_length,
        .algorithm = OSCORE_ALGORITHM,
    };
    (void)oscore_derive(&from, crypto, NULL, 0, "Key", context->sender_key, OSCORE_KEY);
    (void)oscore_derive(&from, crypto, server_id, sizeof server_id, "Key", context->recipient_key,
                        OSCORE_KEY);
    (void)oscore_derive(&from, crypto, NULL, 0, "IV", context->common_iv, OSCORE_NONCE);
    context->next = (uint64_t)start << OSCORE_NUMBER_BITS;
    context->end = start > 0 ? ((uint64_t)start + 1) << OSCORE_NUMBER_BITS : 0;
}

/* ---- The option ---- */

size_t oscore_request_option(const struct oscore_context *context, uint64_t number,
                             uint8_t *option) {
    size_t used = 1;
    used += put_number(option + used, number);
    option[0] = (uint8_t)(FLAG_ID_CONTEXT | FLAG_KID | (used - 1));
    option[used++] = (uint8_t)context->id_context_length;
    memcpy(option + used, context->id_context, context->id_context_length);
    return used + context->id_context_length;
}

bool oscore_read_option(struct oscore_option *option, const uint8_t *value, size_t length) {
    *option = (struct oscore_option){0};
    if (length == 0) {
        return true;
    }
    const uint8_t flags = value[0];
    size_t at = 1;
    const size_t number_length = flags & FLAG_NUMBER_LENGTH;
    /* No flags need no byte (§2), so that there is one way to say a thing. */
    if (flags == 0 || (flags & FLAG_RESERVED) != 0 || number_length > MAX_NUMBER_LENGTH ||
        number_length > length - at || (number_length > 1 && value[at] == 0)) {
        return false;
    }
    option->has_number = number_length > 0;
    for (size_t i = 0; i < number_length; i++) {
        option->number = option->number << 8 | value[at++];
    }
    if ((flags & FLAG_ID_CONTEXT) != 0) {
        if (at == length || value[at] > length - at - 1) {
            return false;
        }
        option->id_context_length = value[at++];
        option->id_context = value + at;
        at += option->id_context_length;
    }
    option->has_kid = (flags & FLAG_KID) != 0;
    option->kid_length = length - at;
    option->kid = value + at;
    return option->has_kid || option->kid_length == 0;
}

/* ---- The window ---- */

static bool is_fresh(const struct oscore_window *window, uint64_t number) {
    if (!window->open) {
        return false;
    }
    return number > window->highest || (window->highest - number < WINDOW_SIZE &&
                                        (window->seen >> (window->highest - number) & 1u) == 0);
}

static void mark(struct oscore_window *window, uint64_t number) {
    if (number > window->highest) {
        const uint64_t step = number - window->highest;
        window->seen = step < WINDOW_SIZE ? window->seen << step | 1u : 1u;
        window->highest = number;
    } else if (window->highest - number < WINDOW_SIZE) {
        window->seen |= 1u << (window->highest - number);
    }
}

/* ---- Messages ---- */

struct part {
    const uint8_t *key;
    const uint8_t *nonce_id; /* whose number makes the nonce */
    size_t nonce_id_length;
    uint64_t nonce_number;
    const uint8_t *kid; /* of the request */
    size_t kid_length;
    uint64_t number; /* of the request */
};

/* Nonce and associated data of a message. */
static size_t prepare(const struct oscore_context *context, const struct part *part,
                      uint8_t nonce[OSCORE_NONCE], uint8_t associated[OSCORE_MAX_ASSOCIATED]) {
    oscore_nonce(context->common_iv, OSCORE_NONCE, part->nonce_id, part->nonce_id_length,
                 part->nonce_number, nonce);
    return oscore_associate(OSCORE_ALGORITHM, part->kid, part->kid_length, part->number,
                            associated);
}

static void seal(const struct oscore_context *context, const struct part *part, uint8_t *data,
                 size_t length) {
    uint8_t nonce[OSCORE_NONCE];
    uint8_t associated[OSCORE_MAX_ASSOCIATED];
    const size_t associated_length = prepare(context, part, nonce, associated);
    context->crypto->seal(part->key, nonce, associated, associated_length, data, length);
}

static bool open(const struct oscore_context *context, const struct part *part, uint8_t *data,
                 size_t length) {
    uint8_t nonce[OSCORE_NONCE];
    uint8_t associated[OSCORE_MAX_ASSOCIATED];
    if (length <= OSCORE_TAG) { /* a plaintext has a code at least */
        return false;
    }
    const size_t associated_length = prepare(context, part, nonce, associated);
    return context->crypto->open(part->key, nonce, associated, associated_length, data,
                                 length - OSCORE_TAG);
}

void oscore_seal_request(const struct oscore_context *context, uint64_t number, uint8_t *data,
                         size_t length) {
    const struct part part = {.key = context->sender_key, .nonce_number = number, .number = number};
    seal(context, &part, data, length);
}

bool oscore_open_reply(struct oscore_context *context, uint64_t number,
                       const struct oscore_option *option, uint8_t *data, size_t length) {
    struct part part = {.key = context->recipient_key, .nonce_number = number, .number = number};
    if (option->has_number) {
        part.nonce_id = server_id;
        part.nonce_id_length = sizeof server_id;
        part.nonce_number = option->number;
    }
    if (!open(context, &part, data, length)) {
        return false;
    }
    /* What the server says from now on has higher numbers, and what it has said before has not. */
    if (option->has_number && !context->window.open) {
        context->window =
            (struct oscore_window){.open = true, .highest = option->number, .seen = UINT32_MAX};
    }
    return true;
}

bool oscore_open_request(struct oscore_context *context, const struct oscore_option *option,
                         uint8_t *data, size_t length) {
    if (!option->has_number || !option->has_kid || option->kid_length != sizeof server_id ||
        option->kid[0] != server_id[0] || !is_fresh(&context->window, option->number)) {
        return false;
    }
    const struct part part = {
        .key = context->recipient_key,
        .nonce_id = server_id,
        .nonce_id_length = sizeof server_id,
        .nonce_number = option->number,
        .kid = server_id,
        .kid_length = sizeof server_id,
        .number = option->number,
    };
    if (!open(context, &part, data, length)) {
        return false;
    }
    mark(&context->window, option->number);
    return true;
}

void oscore_seal_reply(const struct oscore_context *context, uint64_t number, uint8_t *data,
                       size_t length) {
    const struct part part = {
        .key = context->sender_key,
        .nonce_id = server_id,
        .nonce_id_length = sizeof server_id,
        .nonce_number = number,
        .kid = server_id,
        .kid_length = sizeof server_id,
        .number = number,
    };
    seal(context, &part, data, length);
}
