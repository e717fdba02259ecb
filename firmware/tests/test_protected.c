/* The endpoint with protection (RFC 8613) and Echo (RFC 9175). The cryptography is a toy here: that
 * of the terminal is compared with another implementation in tests/test_firmware_oscore.py. */
#include "lib/coap.h"
#include "lib/crc.h"
#include "tests/check.h"

/* ---- The toy ---- */

static void mac(const uint8_t *key, size_t key_length, const uint8_t *data, size_t length,
                uint8_t out[OSCORE_MAC]) {
    uint32_t sum = crc32(crc32(7, key, key_length), data, length);
    for (size_t i = 0; i < OSCORE_MAC; i++) {
        sum = crc32(sum, &(uint8_t){(uint8_t)i}, 1);
        out[i] = (uint8_t)sum;
    }
}

static void stir(const uint8_t *key, const uint8_t *nonce, uint8_t *data, size_t length) {
    uint32_t sum = crc32(crc32(0, key, OSCORE_KEY), nonce, OSCORE_NONCE);
    for (size_t i = 0; i < length; i++) {
        sum = crc32(sum, &(uint8_t){1}, 1);
        data[i] ^= (uint8_t)sum;
    }
}

static void make_tag(const uint8_t *key, const uint8_t *nonce, const uint8_t *associated,
                     size_t associated_length, const uint8_t *data, size_t length,
                     uint8_t tag[OSCORE_MAC]) {
    uint8_t all[64];
    memcpy(all, nonce, OSCORE_NONCE);
    memcpy(all + OSCORE_NONCE, associated, associated_length);
    const uint32_t sum = crc32(0, data, length);
    memcpy(all + OSCORE_NONCE + associated_length, &sum, sizeof sum);
    mac(key, OSCORE_KEY, all, OSCORE_NONCE + associated_length + sizeof sum, tag);
}

static void toy_seal(const uint8_t key[OSCORE_KEY], const uint8_t nonce[OSCORE_NONCE],
                     const uint8_t *associated, size_t associated_length, uint8_t *data,
                     size_t length) {
    uint8_t tag[OSCORE_MAC];
    stir(key, nonce, data, length);
    make_tag(key, nonce, associated, associated_length, data, length, tag);
    memcpy(data + length, tag, OSCORE_TAG);
}

static bool toy_open(const uint8_t key[OSCORE_KEY], const uint8_t nonce[OSCORE_NONCE],
                     const uint8_t *associated, size_t associated_length, uint8_t *data,
                     size_t length) {
    uint8_t tag[OSCORE_MAC];
    make_tag(key, nonce, associated, associated_length, data, length, tag);
    if (memcmp(tag, data + length, OSCORE_TAG) != 0) {
        return false;
    }
    stir(key, nonce, data, length);
    return true;
}

static const struct oscore_crypto toy = {mac, toy_seal, toy_open};

/* ---- The terminal ---- */

#define SERIAL "UB-000001"
#define START 3u

static struct coap_endpoint endpoint;
static struct oscore_context context;
static struct oscore_context server; /* the same keys, the other way round */
static uint64_t server_number;
static uint8_t sent[1280];
static size_t sent_length;
static struct coap_message outer; /* of what was sent */
static int sent_count;
static struct {
    int count;
    enum coap_outcome outcome;
    uint8_t code;
    size_t payload_length;
} ended;
static int requests;

static void on_transmit(void *ctx, const uint8_t *message, size_t length) {
    (void)ctx;
    CHECK(length <= sizeof sent);
    memcpy(sent, message, length);
    sent_length = length;
    sent_count++;
    CHECK(coap_parse(&outer, sent, length));
}

static void on_response(void *ctx, uint32_t tag, enum coap_outcome outcome,
                        const struct coap_message *response) {
    (void)ctx;
    (void)tag;
    ended.count++;
    ended.outcome = outcome;
    ended.code = response != NULL ? response->code : 0;
    ended.payload_length = response != NULL ? response->payload_length : 0;
}

static void on_request(void *ctx, const struct coap_message *request, struct coap_builder *reply) {
    (void)ctx;
    CHECK(coap_path_is(request, "message") && request->payload_length == 3);
    requests++;
    coap_build_code(reply, COAP_CHANGED);
    coap_build_cbor(reply, "\xA1\x01\x02", 3);
}

static void start_with(uint32_t count) {
    static const struct coap_callbacks callbacks = {on_transmit, on_response, on_request, NULL};
    const uint8_t secret[OSCORE_MAC] = {9};
    oscore_init(&context, &toy, secret, SERIAL, count);
    server = context;
    memcpy(server.sender_key, context.recipient_key, OSCORE_KEY);
    memcpy(server.recipient_key, context.sender_key, OSCORE_KEY);
    server_number = 1000;
    coap_endpoint_init(&endpoint, &callbacks, &context, 1);
    sent_count = 0;
    requests = 0;
    memset(&ended, 0, sizeof ended);
}

static bool send(uint64_t now) {
    struct coap_builder builder;
    CHECK(coap_request_begin(&endpoint, &builder, COAP_GET));
    coap_build_path(&builder, "file/1");
    coap_build_cbor(&builder, "\xA0", 1);
    return coap_request_send(&endpoint, &builder, 1, now);
}

/* ---- The server ---- */

/* Opens what the terminal has sent last; returns its number. */
static uint64_t open_sent(struct coap_message *inner) {
    static uint8_t plain[1280];
    struct coap_option option;
    struct oscore_option protection;
    CHECK_EQUAL(outer.code, COAP_POST);
    CHECK(coap_find_option(&outer, COAP_OPTION_OSCORE, &option));
    CHECK(!coap_find_option(&outer, COAP_OPTION_URI_PATH, &option));
    CHECK(coap_find_option(&outer, COAP_OPTION_OSCORE, &option));
    CHECK(oscore_read_option(&protection, option.value, option.length));
    CHECK(protection.has_number && protection.has_kid && protection.kid_length == 0);
    CHECK(protection.id_context_length == strlen(SERIAL) &&
          memcmp(protection.id_context, SERIAL, strlen(SERIAL)) == 0);
    uint8_t nonce[OSCORE_NONCE];
    uint8_t associated[OSCORE_MAX_ASSOCIATED];
    const size_t length = outer.payload_length - OSCORE_TAG;
    uint8_t sealed[1280];
    memcpy(sealed, outer.payload, outer.payload_length);
    oscore_nonce(server.common_iv, OSCORE_NONCE, NULL, 0, protection.number, nonce);
    CHECK(toy_open(server.recipient_key, nonce, associated,
                   oscore_associate(OSCORE_ALGORITHM, NULL, 0, protection.number, associated),
                   sealed, length));
    memcpy(plain, "\x40\x00\x00\x00", 4); /* as a message of its own */
    plain[1] = sealed[0];
    memcpy(plain + 4, sealed + 1, length - 1);
    CHECK(coap_parse(inner, plain, length + 3));
    return protection.number;
}

static size_t put_number(uint8_t *option, uint64_t number, bool kid) {
    option[0] = (uint8_t)(2u | (kid ? 8u : 0u));
    option[1] = (uint8_t)(number >> 8);
    option[2] = (uint8_t)number;
    option[3] = 1;
    return kid ? 4 : 3;
}

/* Seals `plaintext` for the request `number` of the terminal's, or as a request when that is 0, and
 * has it arrive. `own`: with a number of the server's own. */
static void say_sealed(enum coap_type type, uint16_t mid, uint64_t request, bool own,
                       const void *plaintext, size_t length) {
    uint8_t nonce[OSCORE_NONCE];
    uint8_t associated[OSCORE_MAX_ASSOCIATED];
    uint8_t option[4];
    uint8_t message[256];
    const uint8_t kid = 1;
    const bool is_request = request == 0;
    const uint64_t number = own ? ++server_number : request;
    struct coap_builder builder;
    coap_build(&builder, message, sizeof message, type, is_request ? COAP_POST : COAP_CHANGED, mid,
               is_request ? (const uint8_t *)"tk" : outer.token,
               is_request ? 2 : outer.token_length);
    coap_build_option(&builder, COAP_OPTION_OSCORE, option,
                      own ? put_number(option, number, is_request) : 0);
    size_t room;
    uint8_t *const sealed = coap_build_payload_room(&builder, &room);
    memcpy(sealed, plaintext, length);
    oscore_nonce(server.common_iv, OSCORE_NONCE, &kid, own ? 1 : 0, number, nonce);
    const size_t associated_length = oscore_associate(OSCORE_ALGORITHM, &kid, is_request ? 1 : 0,
                                                      is_request ? number : request, associated);
    toy_seal(server.sender_key, nonce, associated, associated_length, sealed, length);
    coap_build_payload_used(&builder, length + OSCORE_TAG);
    coap_endpoint_receive(&endpoint, message, coap_build_finish(&builder), 0);
}

#define MESSAGE "\x02\xB7message\xFF\xA1\x01\x02"

static void ask(uint16_t mid) {
    say_sealed(COAP_CON, mid, 0, true, MESSAGE, sizeof MESSAGE - 1);
}

static void ask_again(uint16_t mid) {
    server_number--;
    ask(mid);
}

static bool is_refusal(void) {
    struct coap_option option;
    return outer.code == COAP_UNAUTHORIZED && outer.payload_length == 0 &&
           !coap_find_option(&outer, COAP_OPTION_OSCORE, &option);
}

/* ---- Tests ---- */

static void test_request_and_response(void) {
    struct coap_message inner;
    start_with(START);
    CHECK(send(0));
    const uint64_t number = open_sent(&inner);
    CHECK_EQUAL(number, (uint64_t)START << OSCORE_NUMBER_BITS);
    CHECK(inner.code == COAP_GET && coap_path_is(&inner, "file/1") && inner.payload_length == 1);
    uint8_t first[1280];
    memcpy(first, sent, sent_length);
    const size_t length = sent_length;
    coap_endpoint_poll(&endpoint, COAP_ACK_TIMEOUT_US);
    CHECK(sent_count == 2 && sent_length == length && memcmp(first, sent, length) == 0);
    say_sealed(COAP_ACK, outer.mid, number, false, "\x45\xFFwhat", 6);
    CHECK(ended.count == 1 && ended.outcome == COAP_RESPONSE && ended.code == COAP_CONTENT);
    CHECK_EQUAL(ended.payload_length, 4);
    CHECK(send(0));
    CHECK_EQUAL(open_sent(&inner), number + 1);
    say_sealed(COAP_CON, 77, number + 1, true, "\x44", 1);
    CHECK(ended.count == 2 && ended.code == COAP_CHANGED);
}

static void test_what_is_not_the_servers(void) {
    struct coap_message inner;
    start_with(START);
    CHECK(send(0));
    const uint64_t number = open_sent(&inner);
    say_sealed(COAP_ACK, outer.mid, number + 1, false, "\x44", 1); /* to another request */
    say_sealed(COAP_ACK, outer.mid, number, false, "", 0);
    CHECK_EQUAL(ended.count, 0);
    uint8_t message[16];
    struct coap_builder builder;
    coap_build(&builder, message, sizeof message, COAP_ACK, COAP_UNAUTHORIZED, outer.mid,
               outer.token, outer.token_length);
    coap_endpoint_receive(&endpoint, message, coap_build_finish(&builder), 0);
    CHECK(ended.count == 1 && ended.outcome == COAP_UNPROTECTED && ended.code == COAP_UNAUTHORIZED);
}

static void test_echo(void) {
    static const char wanted[] = "\x81\xD8\xEF"
                                 "12345678"; /* 4.01, option 252 of 8 bytes */
    struct coap_message inner;
    struct coap_option echo;
    start_with(START);
    CHECK(send(0));
    uint64_t number = open_sent(&inner);
    for (uint32_t i = 1; i <= COAP_MAX_ECHOES; i++) {
        const uint16_t mid = outer.mid;
        say_sealed(COAP_ACK, outer.mid, number, true, wanted, sizeof wanted - 1);
        CHECK(ended.count == 0 && sent_count == (int)i + 1 && outer.mid != mid);
        CHECK_EQUAL(open_sent(&inner), number + 1);
        CHECK(coap_path_is(&inner, "file/1") && inner.payload_length == 1);
        CHECK(coap_find_option(&inner, COAP_OPTION_ECHO, &echo) && echo.length == 8 &&
              memcmp(echo.value, "12345678", 8) == 0);
        number++;
    }
    say_sealed(COAP_ACK, outer.mid, number, true, wanted, sizeof wanted - 1);
    CHECK(ended.count == 1 && ended.outcome == COAP_REJECTED);
    CHECK(send(0));
    (void)open_sent(&inner);
    CHECK(!coap_find_option(&inner, COAP_OPTION_ECHO, &echo));
}

static void test_requests_of_the_server(void) {
    struct coap_message inner;
    start_with(START);
    ask(1);
    CHECK(requests == 0 && is_refusal());
    CHECK(send(0));
    const uint64_t number = open_sent(&inner);
    say_sealed(COAP_ACK, outer.mid, number, true, "\x44", 1); /* the window begins */
    server_number -= 2;
    ask(1);
    CHECK(requests == 0 && is_refusal()); /* from before */
    server_number++;
    ask(2);
    CHECK(requests == 1 && outer.code == COAP_CHANGED && outer.mid == 2);
    CHECK(outer.payload_length == 1 + 2 + 1 + 3 + OSCORE_TAG);
    uint8_t first[1280];
    memcpy(first, sent, sent_length);
    const size_t length = sent_length;
    ask_again(2);
    CHECK(requests == 1 && sent_length == length && memcmp(first, sent, length) == 0);
    ask_again(3);
    CHECK(requests == 1 && is_refusal());
    ask(3); /* nothing is remembered of what was refused */
    CHECK(requests == 2 && !is_refusal());
    uint8_t plain[] = "\x40\x02\x00\x09\xB7message\xFF\xA1\x01\x02";
    coap_endpoint_receive(&endpoint, plain, sizeof plain - 1, 0);
    CHECK(requests == 2 && is_refusal() && outer.mid == 9);
    const int before = sent_count;
    plain[0] = 0x50;
    coap_endpoint_receive(&endpoint, plain, sizeof plain - 1, 0);
    CHECK(requests == 2 && sent_count == before);
}

static void test_without_numbers(void) {
    start_with(0);
    CHECK(!send(0) && sent_count == 0);
    ask(1);
    CHECK(requests == 0 && is_refusal());
    start_with(START);
    context.next = context.end - 1;
    CHECK(send(0) && !send(0));
}

int main(void) {
    test_request_and_response();
    test_what_is_not_the_servers();
    test_echo();
    test_requests_of_the_server();
    test_without_numbers();
    return 0;
}
