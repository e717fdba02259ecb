#include "lib/coap.h"

#include <string.h>

#include "lib/crc.h"
#include "lib/print.h"

#define HEADER_SIZE 4u
#define PAYLOAD_MARKER 0xFFu
#define VERSION 1u
#define REQUEST_TOKEN_SIZE 4u

/* ---- Reading messages ---- */

/* The 4-bit delta or length of an option, with its extension (RFC 7252 §3.1). */
static bool read_nibble(const uint8_t **next, const uint8_t *end, uint32_t nibble,
                        uint32_t *value) {
    if (nibble < 13) {
        *value = nibble;
        return true;
    }
    const size_t left = (size_t)(end - *next);
    if (nibble == 13 && left >= 1) {
        *value = 13u + (*next)[0];
        *next += 1;
        return true;
    }
    if (nibble == 14 && left >= 2) {
        *value = 269u + ((uint32_t)(*next)[0] << 8 | (*next)[1]);
        *next += 2;
        return true;
    }
    return false;
}

/* Reads the option at `next`. False at the end, at the payload marker, and at what is no option. */
static bool read_option(struct coap_option_iterator *iterator, struct coap_option *option) {
    const uint8_t *next = iterator->next;
    if (next == iterator->end || *next == PAYLOAD_MARKER) {
        return false;
    }
    const uint32_t first = *next++;
    uint32_t delta;
    uint32_t length;
    if (!read_nibble(&next, iterator->end, first >> 4, &delta) ||
        !read_nibble(&next, iterator->end, first & 15u, &length) ||
        iterator->number + delta > UINT16_MAX || length > (size_t)(iterator->end - next) ||
        length > UINT16_MAX) {
        return false;
    }
    iterator->number = (uint16_t)(iterator->number + delta);
    iterator->next = next + length;
    *option = (struct coap_option){iterator->number, (uint16_t)length, next};
    return true;
}

/* Options and payload: all from `start` to `end`. */
static bool parse_body(struct coap_message *message, const uint8_t *start, const uint8_t *end) {
    struct coap_option_iterator iterator = {start, end, 0};
    struct coap_option option;
    while (read_option(&iterator, &option)) {
    }
    message->options = start;
    message->options_length = (size_t)(iterator.next - start);
    message->payload = NULL;
    message->payload_length = 0;
    if (iterator.next == end) {
        return true;
    }
    /* What stopped the options must be the marker, and something must follow it. */
    message->payload = iterator.next + 1;
    message->payload_length = (size_t)(end - message->payload);
    return *iterator.next == PAYLOAD_MARKER && message->payload_length > 0;
}

bool coap_parse(struct coap_message *message, const uint8_t *data, size_t length) {
    if (length < HEADER_SIZE || data[0] >> 6 != VERSION) {
        return false;
    }
    *message = (struct coap_message){
        .type = (enum coap_type)(data[0] >> 4 & 3),
        .token_length = data[0] & 15u,
        .code = data[1],
        .mid = (uint16_t)(data[2] << 8 | data[3]),
    };
    if (message->token_length > COAP_MAX_TOKEN || length < HEADER_SIZE + message->token_length ||
        (message->code == COAP_EMPTY && length != HEADER_SIZE)) {
        return false;
    }
    memcpy(message->token, data + HEADER_SIZE, message->token_length);
    return parse_body(message, data + HEADER_SIZE + message->token_length, data + length);
}

void coap_options(const struct coap_message *message, struct coap_option_iterator *iterator) {
    *iterator = (struct coap_option_iterator){message->options,
                                              message->options + message->options_length, 0};
}

bool coap_next_option(struct coap_option_iterator *iterator, struct coap_option *option) {
    return read_option(iterator, option);
}

bool coap_find_option(const struct coap_message *message, uint16_t number,
                      struct coap_option *option) {
    struct coap_option_iterator iterator;
    coap_options(message, &iterator);
    while (coap_next_option(&iterator, option)) {
        if (option->number == number) {
            return true;
        }
    }
    return false;
}

bool coap_option_uint(const struct coap_option *option, uint32_t *value) {
    if (option->length > 4) {
        return false;
    }
    *value = 0;
    for (size_t i = 0; i < option->length; i++) {
        *value = *value << 8 | option->value[i];
    }
    return true;
}

/* The length of the first segment of a path. */
static size_t segment_length(const char *path) {
    const char *slash = strchr(path, '/');
    return slash != NULL ? (size_t)(slash - path) : strlen(path);
}

bool coap_path_is(const struct coap_message *message, const char *path) {
    struct coap_option_iterator iterator;
    struct coap_option option;
    coap_options(message, &iterator);
    bool more = *path != '\0';
    while (coap_next_option(&iterator, &option)) {
        if (option.number != COAP_OPTION_URI_PATH) {
            continue;
        }
        const size_t length = segment_length(path);
        if (!more || option.length != length || memcmp(option.value, path, length) != 0) {
            return false;
        }
        path += length;
        more = *path == '/';
        path += more;
    }
    return !more;
}

int32_t coap_content_format(const struct coap_message *message) {
    struct coap_option option;
    uint32_t value;
    if (!coap_find_option(message, COAP_OPTION_CONTENT_FORMAT, &option) || option.length > 2 ||
        !coap_option_uint(&option, &value)) {
        return -1;
    }
    return (int32_t)value;
}

bool coap_block2(const struct coap_message *message, struct coap_block *block) {
    struct coap_option option;
    uint32_t value;
    if (!coap_find_option(message, COAP_OPTION_BLOCK2, &option) || option.length > 3 ||
        !coap_option_uint(&option, &value) || (value & 7u) == 7) {
        return false;
    }
    *block = (struct coap_block){value >> 4, (value & 8u) != 0, value & 7u};
    return true;
}

/* ---- Writing messages ---- */

static uint8_t *grow(struct coap_builder *builder, size_t length) {
    if (builder->failed || length > builder->size - builder->length) {
        builder->failed = true;
        return NULL;
    }
    uint8_t *at = builder->buffer + builder->length;
    builder->length += length;
    return at;
}

void coap_build(struct coap_builder *builder, uint8_t *buffer, size_t size, enum coap_type type,
                uint8_t code, uint16_t mid, const uint8_t *token, uint8_t token_length) {
    *builder = (struct coap_builder){.buffer = buffer, .size = size};
    if (token_length > COAP_MAX_TOKEN) {
        builder->failed = true;
        return;
    }
    uint8_t *at = grow(builder, HEADER_SIZE + (size_t)token_length);
    if (at != NULL) {
        at[0] = (uint8_t)(VERSION << 6 | (uint32_t)type << 4 | token_length);
        at[1] = code;
        at[2] = (uint8_t)(mid >> 8);
        at[3] = mid & 0xFFu;
        if (token_length > 0) {
            memcpy(at + HEADER_SIZE, token, token_length);
        }
    }
}

void coap_build_code(struct coap_builder *builder, uint8_t code) {
    if (builder->length >= HEADER_SIZE) {
        builder->buffer[1] = code;
    }
}

/* Writes the extension of a delta or length; returns its nibble. */
static uint32_t put_nibble(uint8_t *extension, size_t *used, size_t value) {
    if (value < 13) {
        return (uint32_t)value;
    }
    if (value < 269) {
        extension[(*used)++] = (uint8_t)(value - 13);
        return 13;
    }
    extension[(*used)++] = (uint8_t)((value - 269) >> 8);
    extension[(*used)++] = (uint8_t)(value - 269);
    return 14;
}

void coap_build_option(struct coap_builder *builder, uint16_t number, const void *value,
                       size_t length) {
    if (builder->has_payload || number < builder->last_option || length > UINT16_MAX) {
        builder->failed = true;
        return;
    }
    uint8_t head[5];
    size_t used = 1;
    const uint32_t delta = put_nibble(head, &used, (size_t)number - builder->last_option);
    head[0] = (uint8_t)(delta << 4 | put_nibble(head, &used, length));
    uint8_t *at = grow(builder, used + length);
    if (at != NULL) {
        memcpy(at, head, used);
        if (length > 0) {
            memcpy(at + used, value, length);
        }
        builder->last_option = number;
    }
}

void coap_build_option_uint(struct coap_builder *builder, uint16_t number, uint32_t value) {
    const uint8_t bytes[4] = {(uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8),
                              (uint8_t)value};
    size_t zeros = 0;
    while (zeros < sizeof bytes && bytes[zeros] == 0) {
        zeros++;
    }
    coap_build_option(builder, number, bytes + zeros, sizeof bytes - zeros);
}

void coap_build_path(struct coap_builder *builder, const char *path) {
    while (*path != '\0') {
        const size_t length = segment_length(path);
        coap_build_option(builder, COAP_OPTION_URI_PATH, path, length);
        path += length;
        path += *path == '/';
    }
}

void coap_build_block2(struct coap_builder *builder, const struct coap_block *block) {
    if (block->number > 0xFFFFFu || block->szx > 6) {
        builder->failed = true;
        return;
    }
    coap_build_option_uint(builder, COAP_OPTION_BLOCK2,
                           block->number << 4 | (block->more ? 8u : 0u) | block->szx);
}

uint8_t *coap_build_payload_room(struct coap_builder *builder, size_t *room) {
    const size_t left = builder->size - builder->length;
    if (builder->failed || builder->has_payload || left < 2) {
        builder->failed = true;
        *room = 0;
        return NULL;
    }
    *room = left - 1;
    return builder->buffer + builder->length + 1;
}

void coap_build_payload_used(struct coap_builder *builder, size_t length) {
    if (length == 0) {
        return;
    }
    uint8_t *at = grow(builder, 1 + length);
    if (at != NULL) {
        at[0] = PAYLOAD_MARKER;
        builder->has_payload = true;
    }
}

void coap_build_payload(struct coap_builder *builder, const void *data, size_t length) {
    if (length == 0) {
        return;
    }
    size_t room;
    uint8_t *at = coap_build_payload_room(builder, &room);
    if (length > room) {
        builder->failed = true;
        return;
    }
    memcpy(at, data, length);
    coap_build_payload_used(builder, length);
}

void coap_build_cbor(struct coap_builder *builder, const void *data, size_t length) {
    coap_build_option_uint(builder, COAP_OPTION_CONTENT_FORMAT, COAP_FORMAT_CBOR);
    coap_build_payload(builder, data, length);
}

size_t coap_build_finish(const struct coap_builder *builder) {
    return builder->failed ? 0 : builder->length;
}

/* ---- Endpoint ---- */

void coap_endpoint_init(struct coap_endpoint *endpoint, const struct coap_callbacks *callbacks,
                        struct oscore_context *security, uint32_t seed) {
    memset(endpoint, 0, sizeof *endpoint);
    endpoint->callbacks = callbacks;
    endpoint->security = security;
    /* Spread the seed, so that seeds that follow each other begin far from each other. */
    const uint32_t spread = crc32(0, &(uint32_t){seed}, sizeof seed);
    endpoint->next_mid = (uint16_t)spread;
    endpoint->next_token = spread;
}

static void put_token(uint8_t *at, uint32_t token) {
    for (size_t i = 0; i < REQUEST_TOKEN_SIZE; i++) {
        at[i] = (uint8_t)(token >> 8 * (REQUEST_TOKEN_SIZE - 1 - i));
    }
}

static void send_empty(const struct coap_endpoint *endpoint, enum coap_type type, uint16_t mid) {
    uint8_t message[HEADER_SIZE];
    struct coap_builder builder;
    coap_build(&builder, message, sizeof message, type, COAP_EMPTY, mid, NULL, 0);
    endpoint->callbacks->transmit(endpoint->callbacks->ctx, message, coap_build_finish(&builder));
}

/* ---- Protection (RFC 8613) ---- */

/* Options and payload of a message once more, with an Echo option unless that is empty: its number
 * is above all others here. */
static void put_body(struct coap_builder *builder, const struct coap_message *message,
                     const uint8_t *echo, size_t echo_length) {
    struct coap_option_iterator iterator;
    struct coap_option option;
    coap_options(message, &iterator);
    while (coap_next_option(&iterator, &option)) {
        coap_build_option(builder, option.number, option.value, option.length);
    }
    if (echo_length > 0) {
        coap_build_option(builder, COAP_OPTION_ECHO, echo, echo_length);
    }
    coap_build_payload(builder, message->payload, message->payload_length);
}

/* The plaintext of a message, where the ciphertext will be: code, options, payload. NULL: there is
 * no room for it and its tag. */
static uint8_t *put_plaintext(struct coap_builder *outer, const struct coap_message *message,
                              const uint8_t *echo, size_t echo_length, size_t *length) {
    size_t room;
    uint8_t *const at = coap_build_payload_room(outer, &room);
    if (at == NULL || room < 1 + OSCORE_TAG) {
        outer->failed = true;
        return NULL;
    }
    struct coap_builder inner = {.buffer = at, .size = room - OSCORE_TAG, .length = 1};
    at[0] = message->code;
    put_body(&inner, message, echo, echo_length);
    *length = coap_build_finish(&inner);
    outer->failed = outer->failed || *length == 0;
    return outer->failed ? NULL : at;
}

/* A request as it is sent, into endpoint->outgoing. Returns its length. */
static size_t put_request(struct coap_endpoint *endpoint, const struct coap_exchange *exchange) {
    struct coap_message message;
    struct coap_builder outer;
    if (!coap_parse(&message, exchange->message, exchange->length)) {
        return 0;
    }
    coap_build(&outer, endpoint->outgoing, sizeof endpoint->outgoing, message.type,
               endpoint->security != NULL ? COAP_POST : message.code, message.mid, message.token,
               message.token_length);
    if (endpoint->security == NULL) {
        put_body(&outer, &message, exchange->echo, exchange->echo_length);
        return coap_build_finish(&outer);
    }
    uint8_t option[OSCORE_MAX_OPTION];
    size_t length;
    coap_build_option(&outer, COAP_OPTION_OSCORE, option,
                      oscore_request_option(endpoint->security, exchange->number, option));
    uint8_t *const plaintext =
        put_plaintext(&outer, &message, exchange->echo, exchange->echo_length, &length);
    if (plaintext != NULL) {
        oscore_seal_request(endpoint->security, exchange->number, plaintext, length);
        coap_build_payload_used(&outer, length + OSCORE_TAG);
    }
    return coap_build_finish(&outer);
}

/* The reply in endpoint->answer as it is sent. `number` is that of the request. */
static void put_reply(struct coap_endpoint *endpoint, struct coap_reply *reply, size_t answered,
                      uint64_t number) {
    struct coap_message message;
    struct coap_builder outer;
    if (endpoint->security == NULL || !coap_parse(&message, endpoint->answer, answered)) {
        memcpy(reply->message, endpoint->answer, answered);
        reply->length = answered;
        return;
    }
    size_t length;
    coap_build(&outer, reply->message, sizeof reply->message, message.type, COAP_CHANGED,
               message.mid, message.token, message.token_length);
    coap_build_option(&outer, COAP_OPTION_OSCORE, NULL, 0);
    uint8_t *const plaintext = put_plaintext(&outer, &message, NULL, 0, &length);
    if (plaintext != NULL) {
        oscore_seal_reply(endpoint->security, number, plaintext, length);
        coap_build_payload_used(&outer, length + OSCORE_TAG);
    }
    reply->length = coap_build_finish(&outer);
}

/* Finds what a protected message says of its protection, and the ciphertext in `data`. */
static bool find_protection(const struct coap_message *message, uint8_t *data,
                            struct oscore_option *protection, uint8_t **sealed) {
    struct coap_option option;
    if (message->payload_length == 0 || !coap_find_option(message, COAP_OPTION_OSCORE, &option) ||
        !oscore_read_option(protection, option.value, option.length)) {
        return false;
    }
    *sealed = data + (message->payload - data);
    return true;
}

/* The message becomes the one that was in it. Outer options are forgotten. */
static bool unwrap(struct coap_message *message, const uint8_t *plaintext) {
    const size_t length = message->payload_length - OSCORE_TAG;
    message->code = plaintext[0];
    return parse_body(message, plaintext + 1, plaintext + length);
}

/* ---- Requests ---- */

bool coap_request_begin(struct coap_endpoint *endpoint, struct coap_builder *builder,
                        uint8_t code) {
    struct coap_exchange *found = NULL;
    for (size_t i = 0; i < COAP_EXCHANGES; i++) {
        struct coap_exchange *exchange = &endpoint->exchanges[i];
        if (exchange->state == COAP_BUILDING) {
            exchange->state = COAP_FREE;
        }
        if (exchange->state == COAP_FREE && found == NULL) {
            found = exchange;
        }
    }
    if (found == NULL) {
        return false;
    }
    found->state = COAP_BUILDING;
    found->mid = endpoint->next_mid++;
    found->token = endpoint->next_token++;
    uint8_t token[REQUEST_TOKEN_SIZE];
    put_token(token, found->token);
    coap_build(builder, found->message, sizeof found->message, COAP_CON, code, found->mid, token,
               sizeof token);
    return true;
}

static void transmit(struct coap_endpoint *endpoint, struct coap_exchange *exchange, uint64_t now) {
    const size_t length = put_request(endpoint, exchange);
    exchange->deadline = now + ((uint64_t)COAP_ACK_TIMEOUT_US << exchange->transmissions);
    exchange->transmissions++;
    endpoint->callbacks->transmit(endpoint->callbacks->ctx, endpoint->outgoing, length);
}

static bool take_number(const struct coap_endpoint *endpoint, struct coap_exchange *exchange) {
    return endpoint->security == NULL || oscore_take_number(endpoint->security, &exchange->number);
}

bool coap_request_send(struct coap_endpoint *endpoint, const struct coap_builder *builder,
                       uint32_t tag, uint64_t now) {
    const size_t length = coap_build_finish(builder);
    for (size_t i = 0; i < COAP_EXCHANGES; i++) {
        struct coap_exchange *exchange = &endpoint->exchanges[i];
        if (exchange->state == COAP_BUILDING && exchange->message == builder->buffer) {
            const bool good = length > 0 && take_number(endpoint, exchange);
            exchange->state = good ? COAP_SENT : COAP_FREE;
            exchange->tag = tag;
            exchange->length = length;
            exchange->transmissions = 0;
            exchange->echoes = 0;
            exchange->echo_length = 0;
            if (good) {
                transmit(endpoint, exchange, now);
            }
            return good;
        }
    }
    return false;
}

static bool is_pending(const struct coap_exchange *exchange) {
    return exchange->state == COAP_SENT || exchange->state == COAP_ACKNOWLEDGED;
}

void coap_request_cancel(struct coap_endpoint *endpoint, uint32_t tag) {
    for (size_t i = 0; i < COAP_EXCHANGES; i++) {
        if (is_pending(&endpoint->exchanges[i]) && endpoint->exchanges[i].tag == tag) {
            endpoint->exchanges[i].state = COAP_FREE;
        }
    }
}

size_t coap_requests_pending(const struct coap_endpoint *endpoint) {
    size_t count = 0;
    for (size_t i = 0; i < COAP_EXCHANGES; i++) {
        count += is_pending(&endpoint->exchanges[i]);
    }
    return count;
}

/* The exchange is free before the callback, so that it can send the next request. */
static void end_exchange(const struct coap_endpoint *endpoint, struct coap_exchange *exchange,
                         enum coap_outcome outcome, const struct coap_message *response) {
    exchange->state = COAP_FREE;
    endpoint->callbacks->response(endpoint->callbacks->ctx, exchange->tag, outcome, response);
}

/* Sends the request once more, as another message, with what the peer wants to see again. False: it
 * has wanted that too often. */
static bool send_with_echo(struct coap_endpoint *endpoint, struct coap_exchange *exchange,
                           const struct coap_option *echo, uint64_t now) {
    if (exchange->echoes == COAP_MAX_ECHOES || !take_number(endpoint, exchange)) {
        return false;
    }
    exchange->echoes++;
    exchange->echo_length = (uint8_t)echo->length;
    memcpy(exchange->echo, echo->value, echo->length);
    exchange->mid = endpoint->next_mid++;
    exchange->token = endpoint->next_token++;
    exchange->message[2] = (uint8_t)(exchange->mid >> 8);
    exchange->message[3] = exchange->mid & 0xFFu;
    put_token(exchange->message + HEADER_SIZE, exchange->token);
    exchange->state = COAP_SENT;
    exchange->transmissions = 0;
    transmit(endpoint, exchange, now);
    return true;
}

static bool token_matches(const struct coap_message *message, uint32_t token) {
    return message->token_length == REQUEST_TOKEN_SIZE &&
           ((uint32_t)message->token[0] << 24 | (uint32_t)message->token[1] << 16 |
            (uint32_t)message->token[2] << 8 | message->token[3]) == token;
}

/* A critical option that is recognised, and what its definition allows. */
struct option_rule {
    uint16_t number;
    uint16_t shortest; /* bytes */
    uint16_t longest;
    bool repeatable;
};

/* RFC 7252 §5.10. Uri-Query is last, since it is recognised in a request for discovery only. */
static const struct option_rule request_rules[] = {
    {COAP_OPTION_URI_HOST, 1, 255, false},   {COAP_OPTION_URI_PORT, 0, 2, false},
    {COAP_OPTION_URI_PATH, 0, 255, true},    {COAP_OPTION_ACCEPT, 0, 2, false},
    {COAP_OPTION_PROXY_URI, 1, 1034, false}, {COAP_OPTION_PROXY_SCHEME, 1, 255, false},
    {COAP_OPTION_URI_QUERY, 0, 255, true},
};
#define REQUEST_RULES (sizeof request_rules / sizeof request_rules[0])

/* RFC 7959 §2.1. */
static const struct option_rule response_rules[] = {{COAP_OPTION_BLOCK2, 0, 3, false}};
#define RESPONSE_RULES (sizeof response_rules / sizeof response_rules[0])

static bool is_recognised(const struct coap_option *option, bool again,
                          const struct option_rule *rules, size_t count) {
    for (size_t i = 0; i < count; i++) {
        if (rules[i].number == option->number) {
            return option->length >= rules[i].shortest && option->length <= rules[i].longest &&
                   (!again || rules[i].repeatable);
        }
    }
    return false;
}

/* The first critical option that is not recognised (RFC 7252 §5.4.1): unknown, too short or too
 * long (§5.4.3), or once too often (§5.4.5). 0, which is no critical option, when there is none. */
static uint16_t find_unrecognised(const struct coap_message *message,
                                  const struct option_rule *rules, size_t count) {
    struct coap_option_iterator iterator;
    struct coap_option option;
    uint16_t last = 0;
    coap_options(message, &iterator);
    while (coap_next_option(&iterator, &option)) {
        const bool critical = (option.number & 1u) != 0;
        if (critical && !is_recognised(&option, option.number == last, rules, count)) {
            return option.number;
        }
        last = option.number;
    }
    return 0;
}

/* Opens a response. Returns what is to be made of it: COAP_RESPONSE, COAP_UNPROTECTED, or
 * COAP_TIMEOUT when it is as if it had not come. */
static enum coap_outcome open_response(const struct coap_endpoint *endpoint,
                                       const struct coap_exchange *exchange,
                                       struct coap_message *message, uint8_t *data) {
    struct oscore_option protection;
    uint8_t *sealed;
    struct coap_option option;
    if (endpoint->security == NULL) {
        return COAP_RESPONSE;
    }
    if (!coap_find_option(message, COAP_OPTION_OSCORE, &option)) {
        return COAP_UNPROTECTED;
    }
    if (!find_protection(message, data, &protection, &sealed) ||
        !oscore_open_reply(endpoint->security, exchange->number, &protection, sealed,
                           message->payload_length) ||
        !unwrap(message, sealed)) {
        return COAP_TIMEOUT;
    }
    return COAP_RESPONSE;
}

static struct coap_exchange *find_exchange(struct coap_endpoint *endpoint,
                                           const struct coap_message *response) {
    for (size_t i = 0; i < COAP_EXCHANGES; i++) {
        struct coap_exchange *exchange = &endpoint->exchanges[i];
        if (is_pending(exchange) && token_matches(response, exchange->token) &&
            (response->type != COAP_ACK || response->mid == exchange->mid)) {
            return exchange;
        }
    }
    return NULL;
}

static void receive_response(struct coap_endpoint *endpoint, struct coap_message *message,
                             uint8_t *data, uint64_t now) {
    struct coap_exchange *const exchange = find_exchange(endpoint, message);
    if (exchange == NULL) {
        if (message->type == COAP_CON) {
            /* Not ours, or no longer: so that the peer stops sending it (RFC 7252 §5.3.2). */
            send_empty(endpoint, COAP_RST, message->mid);
        }
        return;
    }
    const enum coap_outcome outcome = open_response(endpoint, exchange, message, data);
    if (outcome == COAP_TIMEOUT) {
        return; /* not the peer's (RFC 8613 §8.4): its own may still come */
    }
    const bool good = find_unrecognised(message, response_rules, RESPONSE_RULES) == 0;
    if (message->type == COAP_CON) {
        send_empty(endpoint, good ? COAP_ACK : COAP_RST, message->mid);
    }
    struct coap_option echo;
    if (outcome == COAP_RESPONSE && message->code == COAP_UNAUTHORIZED &&
        coap_find_option(message, COAP_OPTION_ECHO, &echo) && echo.length > 0 &&
        echo.length <= COAP_MAX_ECHO) {
        if (!send_with_echo(endpoint, exchange, &echo, now)) {
            end_exchange(endpoint, exchange, COAP_REJECTED, NULL);
        }
        return;
    }
    end_exchange(endpoint, exchange, good ? outcome : COAP_REJECTED, good ? message : NULL);
}

/* An ACK without a response, or an RST. */
static void receive_empty(struct coap_endpoint *endpoint, const struct coap_message *message,
                          uint64_t now) {
    if (message->type == COAP_CON) { /* a ping, RFC 7252 §4.3 */
        send_empty(endpoint, COAP_RST, message->mid);
        return;
    }
    for (size_t i = 0; i < COAP_EXCHANGES; i++) {
        struct coap_exchange *exchange = &endpoint->exchanges[i];
        if (!is_pending(exchange) || message->mid != exchange->mid) {
            continue;
        }
        if (message->type == COAP_RST) {
            end_exchange(endpoint, exchange, COAP_REJECTED, NULL);
        } else if (message->type == COAP_ACK && exchange->state == COAP_SENT) {
            exchange->state = COAP_ACKNOWLEDGED;
            exchange->deadline = now + COAP_SEPARATE_TIMEOUT_US;
        }
        return;
    }
}

/* A slot for the reply to a new request: a free one, else the one that expires first. */
static struct coap_reply *new_reply(struct coap_endpoint *endpoint, uint64_t now) {
    struct coap_reply *oldest = &endpoint->replies[0];
    for (size_t i = 0; i < COAP_REPLIES; i++) {
        struct coap_reply *reply = &endpoint->replies[i];
        if (!reply->used || reply->expires <= now) {
            return reply;
        }
        if (reply->expires < oldest->expires) {
            oldest = reply;
        }
    }
    return oldest;
}

static struct coap_reply *find_reply(struct coap_endpoint *endpoint, uint16_t mid, uint32_t digest,
                                     uint64_t now) {
    for (size_t i = 0; i < COAP_REPLIES; i++) {
        struct coap_reply *reply = &endpoint->replies[i];
        if (reply->used && reply->expires > now && reply->mid == mid && reply->digest == digest) {
            return reply;
        }
    }
    return NULL;
}

static bool has_option(const struct coap_message *message, uint16_t number) {
    struct coap_option option;
    return coap_find_option(message, number, &option);
}

static bool accepts(const struct coap_message *message, uint32_t offered) {
    struct coap_option option;
    uint32_t format;
    return !coap_find_option(message, COAP_OPTION_ACCEPT, &option) ||
           (coap_option_uint(&option, &format) && format == offered);
}

/* `unrecognised` is a critical option of the request, or 0. */
static void answer(const struct coap_endpoint *endpoint, const struct coap_message *request,
                   uint16_t unrecognised, bool discovery, struct coap_builder *builder) {
    if (unrecognised != 0) {
        char text[40];
        const size_t length =
            print_text(text, sizeof text, "option %u is not recognised", (unsigned)unrecognised);
        coap_build_code(builder, COAP_BAD_OPTION);
        coap_build_payload(builder, text, length);
    } else if (has_option(request, COAP_OPTION_PROXY_URI) ||
               has_option(request, COAP_OPTION_PROXY_SCHEME)) {
        coap_build_code(builder, COAP_PROXYING_NOT_SUPPORTED); /* RFC 7252 §5.10.2 */
    } else if (!accepts(request, discovery ? COAP_FORMAT_LINKS : COAP_FORMAT_CBOR)) {
        coap_build_code(builder, COAP_NOT_ACCEPTABLE);
    } else {
        endpoint->callbacks->request(endpoint->callbacks->ctx, request, builder);
    }
}

/* What is not the peer's is refused, and nothing is remembered of it (RFC 8613 §8.2). */
static void refuse(const struct coap_endpoint *endpoint, const struct coap_message *request) {
    uint8_t message[HEADER_SIZE + COAP_MAX_TOKEN];
    struct coap_builder builder;
    if (request->type == COAP_CON) {
        coap_build(&builder, message, sizeof message, COAP_ACK, COAP_UNAUTHORIZED, request->mid,
                   request->token, request->token_length);
        endpoint->callbacks->transmit(endpoint->callbacks->ctx, message,
                                      coap_build_finish(&builder));
    }
}

/* Opens a request; `number` is that of its protection. */
static bool open_request(const struct coap_endpoint *endpoint, struct coap_message *request,
                         uint8_t *data, uint64_t *number) {
    struct oscore_option protection;
    uint8_t *sealed;
    if (!find_protection(request, data, &protection, &sealed) ||
        !oscore_open_request(endpoint->security, &protection, sealed, request->payload_length)) {
        return false;
    }
    *number = protection.number;
    return unwrap(request, sealed) && COAP_CODE_CLASS(request->code) == 0 &&
           request->code != COAP_EMPTY;
}

/* Answers a request that came for the first time, into endpoint->answer. */
static size_t build_answer(struct coap_endpoint *endpoint, const struct coap_message *request,
                           bool discovery, uint16_t unrecognised) {
    const bool confirmable = request->type == COAP_CON;
    const enum coap_type type = confirmable ? COAP_ACK : COAP_NON;
    const uint16_t mid = confirmable ? request->mid : endpoint->next_mid++;
    struct coap_builder builder;
    coap_build(&builder, endpoint->answer, sizeof endpoint->answer, type, COAP_NOT_FOUND, mid,
               request->token, request->token_length);
    answer(endpoint, request, unrecognised, discovery, &builder);
    if (builder.failed) {
        coap_build(&builder, endpoint->answer, sizeof endpoint->answer, type, COAP_INTERNAL_ERROR,
                   mid, request->token, request->token_length);
    }
    return coap_build_finish(&builder);
}

static void receive_request(struct coap_endpoint *endpoint, struct coap_message *request,
                            uint8_t *data, uint32_t digest, uint64_t now) {
    const struct coap_callbacks *callbacks = endpoint->callbacks;
    struct coap_reply *reply = find_reply(endpoint, request->mid, digest, now);
    if (reply != NULL) {
        if (reply->length > 0 && request->type == COAP_CON) {
            callbacks->transmit(callbacks->ctx, reply->message, reply->length);
        }
        return;
    }
    uint64_t number = 0;
    if (endpoint->security != NULL && !open_request(endpoint, request, data, &number)) {
        refuse(endpoint, request);
        return;
    }
    const bool discovery = coap_path_is(request, COAP_DISCOVERY);
    const uint16_t unrecognised =
        find_unrecognised(request, request_rules, discovery ? REQUEST_RULES : REQUEST_RULES - 1);
    if (unrecognised != 0 && request->type == COAP_NON) {
        return; /* RFC 7252 §5.4.1 */
    }
    reply = new_reply(endpoint, now);
    *reply = (struct coap_reply){.used = true,
                                 .mid = request->mid,
                                 .digest = digest,
                                 .expires = now + COAP_EXCHANGE_LIFETIME_US};
    const size_t answered = build_answer(endpoint, request, discovery, unrecognised);
    put_reply(endpoint, reply, answered, number);
    callbacks->transmit(callbacks->ctx, reply->message, reply->length);
}

void coap_endpoint_receive(struct coap_endpoint *endpoint, uint8_t *data, size_t length,
                           uint64_t now) {
    struct coap_message message;
    if (!coap_parse(&message, data, length)) {
        /* RFC 7252 §4.2: a confirmable message that cannot be processed is rejected. */
        if (length >= HEADER_SIZE && data[0] >> 6 == VERSION && (data[0] >> 4 & 3) == COAP_CON) {
            send_empty(endpoint, COAP_RST, (uint16_t)(data[2] << 8 | data[3]));
        }
        return;
    }
    const uint32_t class_ = COAP_CODE_CLASS(message.code);
    if (message.code == COAP_EMPTY) {
        receive_empty(endpoint, &message, now);
    } else if (class_ == 0) {
        if (message.type == COAP_CON || message.type == COAP_NON) {
            receive_request(endpoint, &message, data, crc32(0, data, length), now);
        }
    } else if (class_ == 2 || class_ == 4 || class_ == 5) {
        if (message.type != COAP_RST) {
            receive_response(endpoint, &message, data, now);
        }
    } else if (message.type == COAP_CON) {
        send_empty(endpoint, COAP_RST, message.mid); /* a reserved class */
    }
}

uint64_t coap_endpoint_poll(struct coap_endpoint *endpoint, uint64_t now) {
    for (size_t i = 0; i < COAP_EXCHANGES; i++) {
        struct coap_exchange *exchange = &endpoint->exchanges[i];
        if (!is_pending(exchange) || exchange->deadline > now) {
            continue;
        }
        if (exchange->state == COAP_SENT && exchange->transmissions <= COAP_MAX_RETRANSMIT) {
            transmit(endpoint, exchange, now);
        } else {
            end_exchange(endpoint, exchange, COAP_TIMEOUT, NULL);
        }
    }
    uint64_t next = COAP_NEVER;
    for (size_t i = 0; i < COAP_EXCHANGES; i++) {
        const struct coap_exchange *exchange = &endpoint->exchanges[i];
        if (is_pending(exchange) && exchange->deadline < next) {
            next = exchange->deadline;
        }
    }
    return next;
}
