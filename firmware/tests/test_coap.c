#include "lib/coap.h"
#include "lib/print.h"
#include "tests/check.h"

/* ---- Messages ---- */

#define PARSE(message, bytes) coap_parse(message, (const uint8_t *)(bytes), sizeof(bytes) - 1)

static void test_parse(void) {
    struct coap_message message;
    struct coap_option option;
    struct coap_option_iterator iterator;
    uint32_t value;
    /* CON GET, token 71, Uri-Path "file", "12", Block2 1/0/64, payload. */
    CHECK(PARSE(&message, "\x41\x01\xBE\xEF\x71\xB4"
                          "file\x02"
                          "12\xC1\x12\xFFpay"));
    CHECK_EQUAL(message.type, COAP_CON);
    CHECK_EQUAL(message.code, COAP_GET);
    CHECK_EQUAL(message.mid, 0xBEEF);
    CHECK_EQUAL(message.token_length, 1);
    CHECK_EQUAL(message.token[0], 0x71);
    CHECK_EQUAL(message.payload_length, 3);
    CHECK(memcmp(message.payload, "pay", 3) == 0);
    CHECK(coap_path_is(&message, "file/12"));
    CHECK(!coap_path_is(&message, "file"));
    CHECK(!coap_path_is(&message, "file/1"));
    CHECK(!coap_path_is(&message, "file/12/"));
    CHECK(!coap_path_is(&message, "file/12/3"));
    CHECK(!coap_path_is(&message, "file/13"));
    CHECK(!coap_path_is(&message, ""));
    struct coap_block block;
    CHECK(coap_block2(&message, &block));
    CHECK_EQUAL(block.number, 1);
    CHECK(!block.more);
    CHECK_EQUAL(COAP_BLOCK_SIZE(block.szx), 64);
    CHECK_EQUAL(coap_content_format(&message), -1);
    coap_options(&message, &iterator);
    CHECK(coap_next_option(&iterator, &option) && option.number == 11 && option.length == 4);
    CHECK(coap_next_option(&iterator, &option) && option.number == 11 && option.length == 2);
    CHECK(coap_next_option(&iterator, &option) && option.number == 23 && option.length == 1);
    CHECK(!coap_next_option(&iterator, &option));

    /* Extended deltas and lengths. */
    CHECK(PARSE(&message, "\x50\x45\x00\x01\xDD\x00\x00"
                          "1234567890abc\xE1\x00\x00x"));
    coap_options(&message, &iterator);
    CHECK(coap_next_option(&iterator, &option) && option.number == 13 && option.length == 13);
    CHECK(coap_next_option(&iterator, &option) && option.number == 13 + 269 && option.length == 1);
    CHECK(PARSE(&message, "\x40\x45\x00\x01\xC1\x3C"));
    CHECK_EQUAL(coap_content_format(&message), 60);
    CHECK(PARSE(&message, "\x40\x45\x00\x01\xC0"));
    CHECK_EQUAL(coap_content_format(&message), 0);
    CHECK(coap_path_is(&message, ""));
    CHECK(coap_find_option(&message, 12, &option) && coap_option_uint(&option, &value));
    CHECK_EQUAL(value, 0);
    CHECK(!coap_find_option(&message, 11, &option));
    option = (struct coap_option){23, 5, (const uint8_t *)"12345"};
    CHECK(!coap_option_uint(&option, &value));
    CHECK(PARSE(&message, "\x40\x45\x00\x01\xD1\x0A\x0F")); /* Block2 with SZX 7 */
    CHECK(!coap_block2(&message, &block));
    CHECK(PARSE(&message, "\x40\x45\x00\x01\xD4\x0A\x00\x00\x00\x06"));
    CHECK(!coap_block2(&message, &block));
    CHECK(PARSE(&message, "\x40\x45\x00\x01\xD3\x0A\xFF\xFF\xFE"));
    CHECK(coap_block2(&message, &block));
    CHECK_EQUAL(block.number, 0xFFFFF);
    CHECK(block.more);
}

static void test_malformed(void) {
    struct coap_message message;
    CHECK(!PARSE(&message, ""));
    CHECK(!PARSE(&message, "\x40\x01\x00"));
    CHECK(!PARSE(&message, "\x80\x01\x00\x00")); /* version 2 */
    CHECK(!PARSE(&message, "\x49\x01\x00\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09"));
    CHECK(!PARSE(&message, "\x42\x01\x00\x00\x01")); /* token cut off */
    CHECK(!PARSE(&message, "\x40\x00\x00\x00\x00")); /* empty, but something follows */
    CHECK(!PARSE(&message, "\x41\x00\x00\x00\x00"));
    CHECK(!PARSE(&message, "\x40\x01\x00\x00\xFF")); /* marker without payload */
    CHECK(!PARSE(&message, "\x40\x01\x00\x00\xB4"
                           "fil"));
    CHECK(!PARSE(&message, "\x40\x01\x00\x00\xF0")); /* reserved delta */
    CHECK(!PARSE(&message, "\x40\x01\x00\x00\x0F")); /* reserved length */
    CHECK(!PARSE(&message, "\x40\x01\x00\x00\xD0")); /* extension cut off */
    CHECK(!PARSE(&message, "\x40\x01\x00\x00\xE0\x01"));
    CHECK(!PARSE(&message, "\x40\x01\x00\x00\xE0\xFF\xFF")); /* number beyond 65,535 */
    CHECK(!PARSE(&message, "\x40\x01\x00\x00\xE0\x00\x00\xE0\xFF\x00"));
}

static void test_build(void) {
    uint8_t buffer[64];
    struct coap_builder builder;
    struct coap_message message;
    struct coap_block block = {5, true, 6};
    coap_build(&builder, buffer, sizeof buffer, COAP_ACK, COAP_CONTENT, 0x1234,
               (const uint8_t *)"\x01\x02", 2);
    coap_build_option(&builder, COAP_OPTION_ETAG, "etagetag", 8);
    coap_build_path(&builder, "a/bc");
    coap_build_option_uint(&builder, COAP_OPTION_CONTENT_FORMAT, 256);
    coap_build_block2(&builder, &block);
    coap_build_option(&builder, 2000, NULL, 0);
    size_t room;
    uint8_t *payload = coap_build_payload_room(&builder, &room);
    CHECK_EQUAL(room, sizeof buffer - builder.length - 1);
    memcpy(payload, "hello", 5);
    coap_build_payload_used(&builder, 5);
    const size_t length = coap_build_finish(&builder);
    CHECK(length > 0 && coap_parse(&message, buffer, length));
    CHECK_EQUAL(message.type, COAP_ACK);
    CHECK(coap_path_is(&message, "a/bc"));
    CHECK_EQUAL(coap_content_format(&message), 256);
    block = (struct coap_block){0};
    CHECK(coap_block2(&message, &block));
    CHECK(block.number == 5 && block.more && block.szx == 6);
    CHECK_EQUAL(message.payload_length, 5);

    /* What cannot be: options out of order or after the payload, a payload twice, too much. */
    coap_build(&builder, buffer, sizeof buffer, COAP_CON, COAP_GET, 1, NULL, 0);
    coap_build_option_uint(&builder, 12, 1);
    coap_build_option_uint(&builder, 11, 1);
    CHECK_EQUAL(coap_build_finish(&builder), 0);
    coap_build(&builder, buffer, sizeof buffer, COAP_CON, COAP_GET, 1, NULL, 0);
    coap_build_payload(&builder, "x", 1);
    coap_build_option_uint(&builder, 12, 1);
    CHECK_EQUAL(coap_build_finish(&builder), 0);
    coap_build(&builder, buffer, sizeof buffer, COAP_CON, COAP_GET, 1, NULL, 0);
    coap_build_payload(&builder, "x", 1);
    coap_build_payload(&builder, "x", 1);
    CHECK_EQUAL(coap_build_finish(&builder), 0);
    for (size_t size = 0; size < 16; size++) {
        coap_build(&builder, buffer, size, COAP_CON, COAP_POST, 1, (const uint8_t *)"t", 1);
        coap_build_path(&builder, "abc");
        coap_build_cbor(&builder, "\xA1\x01\x02\x03", 4);
        CHECK_EQUAL(coap_build_finish(&builder), 0);
        CHECK(builder.length <= size);
    }
    coap_build(&builder, buffer, 16, COAP_CON, COAP_POST, 1, (const uint8_t *)"t", 1);
    coap_build_path(&builder, "abc");
    coap_build_cbor(&builder, "\xA1\x01\x02\x03", 4);
    CHECK_EQUAL(coap_build_finish(&builder), 16);
    coap_build(&builder, buffer, sizeof buffer, COAP_CON, COAP_GET, 1, (const uint8_t *)"", 9);
    CHECK_EQUAL(coap_build_finish(&builder), 0);
}

/* ---- Endpoint ---- */

#define SECOND UINT64_C(1000000)

static struct coap_endpoint endpoint;
static struct coap_message sent; /* the last message */
static uint8_t sent_bytes[1280];
static size_t sent_length;
static int sent_count;
static struct {
    int count;
    uint32_t tag;
    enum coap_outcome outcome;
    uint8_t code;
} outcome;
static int requests;
static uint8_t reply_size;
static bool chain; /* send the next request from the callback */

static void on_transmit(void *ctx, const uint8_t *message, size_t length) {
    CHECK(ctx == &endpoint);
    memcpy(sent_bytes, message, length);
    sent_length = length;
    sent_count++;
    CHECK(coap_parse(&sent, sent_bytes, length));
}

static bool request(uint32_t tag, uint64_t now) {
    struct coap_builder builder;
    if (!coap_request_begin(&endpoint, &builder, COAP_POST)) {
        return false;
    }
    coap_build_path(&builder, "report");
    coap_build_cbor(&builder, "\xA0", 1);
    return coap_request_send(&endpoint, &builder, tag, now);
}

static void on_response(void *ctx, uint32_t tag, enum coap_outcome result,
                        const struct coap_message *response) {
    CHECK(ctx == &endpoint);
    CHECK((response != NULL) == (result == COAP_RESPONSE));
    outcome.count++;
    outcome.tag = tag;
    outcome.outcome = result;
    outcome.code = response != NULL ? response->code : 0;
    if (chain) {
        CHECK(request(tag + 1, 0));
    }
}

static void on_request(void *ctx, const struct coap_message *message, struct coap_builder *reply) {
    static const uint8_t zeros[UINT8_MAX] = {0};
    CHECK(ctx == &endpoint);
    requests++;
    if (coap_path_is(message, COAP_DISCOVERY)) {
        coap_build_code(reply, COAP_CONTENT);
    } else if (coap_path_is(message, "status")) {
        coap_build_code(reply, COAP_CONTENT);
        coap_build_cbor(reply, zeros, reply_size);
        coap_build_option(reply, reply_size == UINT8_MAX ? 1 : 100, NULL, 0); /* fails */
    } else if (coap_path_is(message, "message")) {
        coap_build_code(reply, COAP_CHANGED);
    }
}

static const struct coap_callbacks callbacks = {on_transmit, on_response, on_request, &endpoint};

static void start(void) {
    coap_endpoint_init(&endpoint, &callbacks, NULL, 1);
    sent_count = 0;
    memset(&outcome, 0, sizeof outcome);
    requests = 0;
    reply_size = 0;
    chain = false;
}

/* The peer answers `to` with a message of this type and code. */
static void peer_says(enum coap_type type, uint8_t code, uint16_t mid,
                      const struct coap_message *to, uint64_t now) {
    uint8_t buffer[64];
    struct coap_builder builder;
    coap_build(&builder, buffer, sizeof buffer, type, code, mid, to != NULL ? to->token : NULL,
               to != NULL ? to->token_length : 0);
    coap_endpoint_receive(&endpoint, buffer, coap_build_finish(&builder), now);
}

static void test_request_and_response(void) {
    start();
    CHECK_EQUAL(coap_endpoint_poll(&endpoint, 0), COAP_NEVER);
    CHECK(request(7, 0));
    CHECK_EQUAL(sent_count, 1);
    CHECK_EQUAL(sent.type, COAP_CON);
    CHECK(sent.token_length <= 4);
    CHECK_EQUAL(coap_requests_pending(&endpoint), 1);
    const struct coap_message first = sent;
    peer_says(COAP_ACK, COAP_CHANGED, (uint16_t)(first.mid + 1), &first, 1); /* another message */
    CHECK_EQUAL(outcome.count, 0);
    struct coap_message other = first;
    other.token[0] ^= 1;
    peer_says(COAP_ACK, COAP_CHANGED, first.mid, &other, 1); /* another token */
    CHECK_EQUAL(outcome.count, 0);
    peer_says(COAP_ACK, COAP_CHANGED, first.mid, &first, 1);
    CHECK_EQUAL(outcome.count, 1);
    CHECK_EQUAL(outcome.tag, 7);
    CHECK_EQUAL(outcome.outcome, COAP_RESPONSE);
    CHECK_EQUAL(outcome.code, COAP_CHANGED);
    peer_says(COAP_ACK, COAP_CHANGED, first.mid, &first, 1); /* a duplicate */
    CHECK_EQUAL(outcome.count, 1);
    CHECK_EQUAL(coap_endpoint_poll(&endpoint, 100 * SECOND), COAP_NEVER);
    CHECK_EQUAL(sent_count, 1);

    CHECK(request(8, 0)); /* message ID and token are new ones */
    CHECK(sent.mid != first.mid);
    CHECK(memcmp(sent.token, first.token, 4) != 0);
    peer_says(COAP_RST, 0, sent.mid, NULL, 0);
    CHECK_EQUAL(outcome.count, 2);
    CHECK_EQUAL(outcome.outcome, COAP_REJECTED);
}

/* RFC 7252 §4.2: after 2, 4, 8 and 16 s, and given up 32 s after that. */
static void test_retransmission(void) {
    static const uint64_t times[] = {2, 6, 14, 30, 62};
    start();
    CHECK(request(1, 0));
    uint8_t original[64];
    const size_t length = sent_length;
    memcpy(original, sent_bytes, length);
    for (size_t i = 0; i < 5; i++) {
        CHECK_EQUAL(coap_endpoint_poll(&endpoint, times[i] * SECOND - 1), times[i] * SECOND);
        CHECK_EQUAL(sent_count, i + 1);
        coap_endpoint_poll(&endpoint, times[i] * SECOND);
        CHECK(sent_length == length && memcmp(sent_bytes, original, length) == 0);
    }
    CHECK_EQUAL(sent_count, 5);
    CHECK_EQUAL(outcome.count, 1);
    CHECK_EQUAL(outcome.outcome, COAP_TIMEOUT);
    CHECK_EQUAL(coap_requests_pending(&endpoint), 0);
}

static void test_separate_response(void) {
    start();
    CHECK(request(1, 0));
    const struct coap_message first = sent;
    peer_says(COAP_ACK, COAP_EMPTY, first.mid, NULL, SECOND);
    CHECK_EQUAL(outcome.count, 0);
    CHECK_EQUAL(coap_endpoint_poll(&endpoint, 50 * SECOND), SECOND + COAP_SEPARATE_TIMEOUT_US);
    CHECK_EQUAL(sent_count, 1);
    peer_says(COAP_CON, COAP_CHANGED, 0x4242, &first, 50 * SECOND);
    CHECK_EQUAL(outcome.count, 1);
    CHECK_EQUAL(outcome.outcome, COAP_RESPONSE);
    CHECK_EQUAL(sent.type, COAP_ACK);
    CHECK_EQUAL(sent.code, COAP_EMPTY);
    CHECK_EQUAL(sent.mid, 0x4242);
    peer_says(COAP_CON, COAP_CHANGED, 0x4243, &first, 50 * SECOND); /* nobody waits for it */
    CHECK_EQUAL(sent.type, COAP_RST);
    CHECK_EQUAL(sent.mid, 0x4243);

    CHECK(request(2, 0)); /* and one that never comes */
    peer_says(COAP_ACK, COAP_EMPTY, sent.mid, NULL, 0);
    coap_endpoint_poll(&endpoint, COAP_SEPARATE_TIMEOUT_US);
    CHECK_EQUAL(outcome.outcome, COAP_TIMEOUT);
}

static void test_several_requests(void) {
    start();
    struct coap_message all[COAP_EXCHANGES];
    for (uint32_t i = 0; i < COAP_EXCHANGES; i++) {
        CHECK(request(i, i));
        all[i] = sent;
    }
    CHECK(!request(99, 0));
    CHECK_EQUAL(coap_endpoint_poll(&endpoint, SECOND), COAP_ACK_TIMEOUT_US);
    peer_says(COAP_ACK, COAP_CHANGED, all[4].mid, &all[4], 0);
    CHECK_EQUAL(outcome.tag, 4);
    peer_says(COAP_ACK, COAP_CHANGED, all[1].mid, &all[1], 0);
    CHECK_EQUAL(outcome.tag, 1);
    CHECK(request(100, 0));
    coap_request_cancel(&endpoint, 2);
    peer_says(COAP_ACK, COAP_CHANGED, all[2].mid, &all[2], 0);
    CHECK_EQUAL(outcome.count, 2);
    CHECK_EQUAL(coap_requests_pending(&endpoint), COAP_EXCHANGES - 2);

    /* A window that stays full: each answer sends the next request. */
    start();
    chain = true;
    for (uint32_t i = 0; i < COAP_EXCHANGES; i++) {
        CHECK(request(1000 * i, 0));
    }
    for (int i = 0; i < 100; i++) {
        const struct coap_message last = sent;
        peer_says(COAP_ACK, COAP_CHANGED, last.mid, &last, 0);
        CHECK_EQUAL(coap_requests_pending(&endpoint), COAP_EXCHANGES);
    }
    CHECK_EQUAL(outcome.tag, 1000 * (COAP_EXCHANGES - 1) + 99);
}

static void test_failed_requests(void) {
    static const uint8_t large[COAP_MAX_REQUEST] = {0};
    struct coap_builder builder;
    start();
    CHECK(coap_request_begin(&endpoint, &builder, COAP_POST));
    coap_build_cbor(&builder, large, sizeof large);
    CHECK(!coap_request_send(&endpoint, &builder, 1, 0));
    CHECK_EQUAL(sent_count, 0);
    CHECK_EQUAL(coap_requests_pending(&endpoint), 0);
    for (size_t i = 0; i < 2 * COAP_EXCHANGES; i++) { /* begun and forgotten */
        CHECK(coap_request_begin(&endpoint, &builder, COAP_POST));
    }
    CHECK(coap_request_send(&endpoint, &builder, 1, 0));
    CHECK(!coap_request_send(&endpoint, &builder, 1, 0)); /* only once */
    CHECK_EQUAL(sent_count, 1);
}

static size_t make_request(uint8_t *buffer, size_t size, enum coap_type type, uint16_t mid,
                           const char *path, uint16_t option, uint32_t value) {
    struct coap_builder builder;
    coap_build(&builder, buffer, size, type, COAP_GET, mid, (const uint8_t *)"tokentok", 8);
    if (option != 0 && option < COAP_OPTION_URI_PATH) {
        coap_build_option_uint(&builder, option, value);
    }
    coap_build_path(&builder, path);
    if (option > COAP_OPTION_URI_PATH) {
        coap_build_option_uint(&builder, option, value);
    }
    return coap_build_finish(&builder);
}

static void test_incoming_requests(void) {
    uint8_t buffer[64];
    start();
    size_t length = make_request(buffer, sizeof buffer, COAP_CON, 5, "status", 0, 0);
    coap_endpoint_receive(&endpoint, buffer, length, 0);
    CHECK_EQUAL(requests, 1);
    CHECK_EQUAL(sent.type, COAP_ACK);
    CHECK_EQUAL(sent.mid, 5);
    CHECK_EQUAL(sent.code, COAP_CONTENT);
    CHECK_EQUAL(sent.token_length, 8);
    /* A duplicate gets the same answer, and is not carried out again. */
    coap_endpoint_receive(&endpoint, buffer, length, COAP_EXCHANGE_LIFETIME_US - 1);
    CHECK_EQUAL(requests, 1);
    CHECK_EQUAL(sent_count, 2);
    CHECK_EQUAL(sent.code, COAP_CONTENT);
    /* Another request with the same message ID: the peer started again. */
    length = make_request(buffer, sizeof buffer, COAP_CON, 5, "message", 0, 0);
    coap_endpoint_receive(&endpoint, buffer, length, 1);
    CHECK_EQUAL(requests, 2);
    CHECK_EQUAL(sent.code, COAP_CHANGED);
    coap_endpoint_receive(&endpoint, buffer, length, 1 + COAP_EXCHANGE_LIFETIME_US);
    CHECK_EQUAL(requests, 3);

    length = make_request(buffer, sizeof buffer, COAP_NON, 6, "message", 0, 0);
    coap_endpoint_receive(&endpoint, buffer, length, 0);
    CHECK_EQUAL(sent.type, COAP_NON);
    const int count = sent_count;
    coap_endpoint_receive(&endpoint, buffer, length, 0);
    CHECK_EQUAL(sent_count, count);
    CHECK_EQUAL(requests, 4);

    static const struct {
        const char *path;
        uint16_t option;
        uint32_t value;
        uint8_t code;
    } cases[] = {{"nothing", 0, 0, COAP_NOT_FOUND},
                 {"status/x", 0, 0, COAP_NOT_FOUND},
                 {"status", COAP_OPTION_ACCEPT, COAP_FORMAT_CBOR, COAP_CONTENT},
                 {"status", COAP_OPTION_ACCEPT, 0, COAP_NOT_ACCEPTABLE},
                 {"status", COAP_OPTION_URI_HOST, 1, COAP_CONTENT},
                 {"status", 15, 1, COAP_BAD_OPTION},
                 {"status", 1, 1, COAP_BAD_OPTION},
                 {"status", 65001, 1, COAP_BAD_OPTION},
                 {"status", 65000, 1, COAP_CONTENT}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        length = make_request(buffer, sizeof buffer, COAP_CON, (uint16_t)(100 + i), cases[i].path,
                              cases[i].option, cases[i].value);
        coap_endpoint_receive(&endpoint, buffer, length, 0);
        CHECK_EQUAL(sent.mid, 100 + i);
        CHECK_EQUAL(sent.code, cases[i].code);
    }
    reply_size = UINT8_MAX; /* the handler spoils its reply */
    length = make_request(buffer, sizeof buffer, COAP_CON, 200, "status", 0, 0);
    coap_endpoint_receive(&endpoint, buffer, length, 0);
    CHECK_EQUAL(sent.code, COAP_INTERNAL_ERROR);
}

/* RFC 7252 §5.4: what counts as a critical option that is not recognised, and what comes of it. */
static void test_options_of_requests(void) {
    static const struct {
        const char *options; /* as encoded, after the path "status" */
        size_t length;
        uint8_t code;
        uint16_t named; /* in the payload */
    } cases[] = {
        {"\x61\x3C", 2, COAP_CONTENT, 0},
        {"\x62\x00\x3C", 3, COAP_CONTENT, 0},
        {"\x63\x00\x00\x3C", 4, COAP_BAD_OPTION, 17}, /* an Accept that is too long */
        {"\x61\x3C\x01\x3C", 4, COAP_BAD_OPTION, 17}, /* and one too many */
        {"\x60\x01\x3C", 3, COAP_BAD_OPTION, 17},
        {"\x41x", 2, COAP_BAD_OPTION, 15},    /* Uri-Query: there is no such resource */
        {"\xC1\x06", 2, COAP_BAD_OPTION, 23}, /* Block2: nothing is served in blocks */
        {"\xE1\xFC\xD1x", 4, COAP_BAD_OPTION, 65001},
        {"\xE1\xFC\xD0x", 4, COAP_CONTENT, 0},    /* 65000 is elective */
        {"\x13\x00\x00\x3C", 4, COAP_CONTENT, 0}, /* so is a Content-Format that is too long */
        {"\xD1\x0Bx", 3, COAP_PROXYING_NOT_SUPPORTED, 0}, /* Proxy-Uri */
        {"\xD0\x0B", 2, COAP_BAD_OPTION, 35},
        {"\xD1\x0Bx\x01x", 5, COAP_BAD_OPTION, 35},
        {"\xD4\x0F"
         "coap",
         6, COAP_PROXYING_NOT_SUPPORTED, 0}, /* Proxy-Scheme */
        {"\xD0\x0F", 2, COAP_BAD_OPTION, 39},
        {"\xD1\x0Bx\xE1\xFC\xB9x", 7, COAP_BAD_OPTION, 65001},
    };
    uint8_t buffer[64];
    start();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        for (uint16_t type = COAP_CON; type <= COAP_NON; type++) {
            const uint16_t mid = (uint16_t)(2 * i + type);
            const int count = sent_count;
            size_t length =
                make_request(buffer, sizeof buffer, (enum coap_type)type, mid, "status", 0, 0);
            memcpy(buffer + length, cases[i].options, cases[i].length);
            requests = 0;
            coap_endpoint_receive(&endpoint, buffer, length + cases[i].length, 0);
            CHECK_EQUAL(requests, cases[i].code == COAP_CONTENT);
            if (cases[i].code == COAP_BAD_OPTION && type == COAP_NON) {
                CHECK_EQUAL(sent_count, count); /* rejected, and that in silence */
                continue;
            }
            CHECK_EQUAL(sent_count, count + 1);
            CHECK_EQUAL(sent.type, type == COAP_CON ? COAP_ACK : COAP_NON);
            CHECK_EQUAL(sent.code, cases[i].code);
            char text[64];
            print_text(text, sizeof text, "option %u is not recognised", cases[i].named);
            CHECK(cases[i].named == 0 || (sent.payload_length == strlen(text) &&
                                          memcmp(sent.payload, text, sent.payload_length) == 0));
        }
    }

    /* Before the path: Uri-Host and Uri-Port. */
    static const struct {
        const char *bytes;
        size_t length;
        uint8_t code;
    } authorities[] = {
        {"\x40\x01\x12\x34\x31h\x42\x16\x33\x46status", 16, COAP_CONTENT},
        {"\x40\x01\x12\x34\x30\x86status", 12, COAP_BAD_OPTION},
        {"\x40\x01\x12\x34\x31h\x01h\x86status", 15, COAP_BAD_OPTION},
        {"\x40\x01\x12\x34\x73\x00\x16\x33\x46status", 15, COAP_BAD_OPTION},
    };
    for (size_t i = 0; i < sizeof authorities / sizeof authorities[0]; i++) {
        uint8_t bytes[64];
        memcpy(bytes, authorities[i].bytes, authorities[i].length);
        coap_endpoint_receive(&endpoint, bytes, authorities[i].length, 0);
        CHECK_EQUAL(sent.code, authorities[i].code);
    }
}

/* RFC 6690 §4: links are asked for there, and a query is understood. */
static void test_discovery(void) {
    static const struct {
        uint16_t option;
        uint32_t value;
        uint8_t code;
    } cases[] = {{0, 0, COAP_CONTENT},
                 {COAP_OPTION_URI_QUERY, 0x72743D78, COAP_CONTENT}, /* "rt=x" */
                 {COAP_OPTION_ACCEPT, COAP_FORMAT_LINKS, COAP_CONTENT},
                 {COAP_OPTION_ACCEPT, COAP_FORMAT_CBOR, COAP_NOT_ACCEPTABLE},
                 {13, 1, COAP_BAD_OPTION}};
    uint8_t buffer[64];
    start();
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const size_t length = make_request(buffer, sizeof buffer, COAP_CON, (uint16_t)i,
                                           COAP_DISCOVERY, cases[i].option, cases[i].value);
        coap_endpoint_receive(&endpoint, buffer, length, 0);
        CHECK_EQUAL(sent.code, cases[i].code);
    }
}

static void test_options_of_responses(void) {
    static const struct {
        const char *options;
        size_t length;
        enum coap_outcome outcome;
    } cases[] = {{"\xD3\x0A\x00\x00\x06", 5, COAP_RESPONSE},
                 {"\xD4\x0A\x00\x00\x00\x06", 6, COAP_REJECTED},
                 {"\xD1\x0A\x06\x01\x06", 5, COAP_REJECTED},
                 {"\x61\x3C", 2, COAP_RESPONSE},
                 {"\xD1\x04x", 3, COAP_REJECTED}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        uint8_t buffer[64];
        struct coap_builder builder;
        start();
        CHECK(request(1, 0));
        coap_build(&builder, buffer, sizeof buffer, COAP_ACK, COAP_CONTENT, sent.mid, sent.token,
                   sent.token_length);
        const size_t length = coap_build_finish(&builder);
        memcpy(buffer + length, cases[i].options, cases[i].length);
        coap_endpoint_receive(&endpoint, buffer, length + cases[i].length, 0);
        CHECK_EQUAL(outcome.count, 1);
        CHECK_EQUAL(outcome.outcome, cases[i].outcome);
    }
}

static void test_odd_messages(void) {
    start();
    static const struct {
        const char *bytes;
        size_t length;
        int answers; /* with RST */
    } cases[] = {{"", 0, 0},
                 {"\x40\x00\x12\x34", 4, 1}, /* ping */
                 {"\x50\x00\x12\x34", 4, 0},
                 {"\x60\x00\x12\x34", 4, 0},
                 {"\x70\x00\x12\x34", 4, 0},
                 {"\x40\x01\x12\x34\xFF", 5, 1}, /* confirmable, but malformed */
                 {"\x50\x01\x12\x34\xFF", 5, 0},
                 {"\x80\x01\x12\x34", 4, 0}, /* another version */
                 {"\x40\x45\x12\x34", 4, 1}, /* a response to nothing */
                 {"\x60\x45\x12\x34", 4, 0},
                 {"\x40\xE1\x12\x34", 4, 1}, /* a reserved class */
                 {"\x60\x01\x12\x34", 4, 0}, /* a request in an ACK */
                 {"\x70\x45\x12\x34", 4, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        sent_count = 0;
        uint8_t bytes[64];
        memcpy(bytes, cases[i].bytes, cases[i].length);
        coap_endpoint_receive(&endpoint, bytes, cases[i].length, 0);
        CHECK_EQUAL(sent_count, cases[i].answers);
        if (cases[i].answers > 0) {
            CHECK_EQUAL(sent.type, COAP_RST);
            CHECK_EQUAL(sent.mid, 0x1234);
        }
    }
    CHECK_EQUAL(outcome.count, 0);
    CHECK_EQUAL(requests, 0);

    /* A response with a critical option that nobody here knows. */
    CHECK(request(1, 0));
    uint8_t buffer[32];
    struct coap_builder builder;
    coap_build(&builder, buffer, sizeof buffer, COAP_ACK, COAP_CONTENT, sent.mid, sent.token,
               sent.token_length);
    coap_build_option_uint(&builder, 27, 1);
    coap_endpoint_receive(&endpoint, buffer, coap_build_finish(&builder), 0);
    CHECK_EQUAL(outcome.outcome, COAP_REJECTED);
}

static void test_seeds_differ(void) {
    uint16_t last = 0;
    for (uint32_t seed = 0; seed < 16; seed++) {
        coap_endpoint_init(&endpoint, &callbacks, NULL, seed);
        CHECK(request(1, 0));
        const uint16_t apart = (uint16_t)(sent.mid - last);
        CHECK(apart > 16 && apart < 65520);
        last = sent.mid;
    }
}

int main(void) {
    test_parse();
    test_malformed();
    test_build();
    test_request_and_response();
    test_retransmission();
    test_separate_response();
    test_several_requests();
    test_failed_requests();
    test_incoming_requests();
    test_options_of_requests();
    test_discovery();
    test_options_of_responses();
    test_odd_messages();
    test_seeds_differ();
    return 0;
}
