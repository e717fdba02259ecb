/* Any bytes as a message, and any sequence of them to an endpoint with requests under way. A
 * message that is well-formed has all of it inside, and survives being built again. */
#include "lib/coap.h"
#include "tests/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check_message(const uint8_t *data, size_t size) {
    struct coap_message message;
    struct coap_message again;
    struct coap_option option;
    struct coap_option other;
    struct coap_option_iterator options;
    struct coap_option_iterator others;
    struct coap_builder builder;
    struct coap_block block;
    uint8_t buffer[8192];
    if (!coap_parse(&message, data, size)) {
        return;
    }
    coap_build(&builder, buffer, sizeof buffer, message.type, message.code, message.mid,
               message.token, message.token_length);
    coap_options(&message, &options);
    while (coap_next_option(&options, &option)) {
        CHECK(option.value >= data && option.value + option.length <= data + size);
        coap_build_option(&builder, option.number, option.value, option.length);
    }
    CHECK(message.payload_length == 0 || message.payload + message.payload_length == data + size);
    coap_build_payload(&builder, message.payload, message.payload_length);
    (void)coap_path_is(&message, "file/12");
    (void)coap_content_format(&message);
    if (coap_block2(&message, &block)) {
        CHECK(block.szx <= 6 && block.number <= 0xFFFFF);
    }

    const size_t length = coap_build_finish(&builder);
    CHECK(length > 0 && length <= size); /* what is built is as short as can be */
    CHECK(coap_parse(&again, buffer, length));
    CHECK(again.type == message.type && again.code == message.code && again.mid == message.mid);
    CHECK(again.payload_length == message.payload_length);
    coap_options(&message, &options);
    coap_options(&again, &others);
    while (coap_next_option(&options, &option)) {
        CHECK(coap_next_option(&others, &other) && other.number == option.number);
        CHECK(other.length == option.length &&
              memcmp(other.value, option.value, option.length) == 0);
    }
    CHECK(!coap_next_option(&others, &other));
}

/* Any tag will do, if it begins with an odd byte: so that what is inside is reached, too. */
static void lax_hmac(const uint8_t *key, size_t key_length, const uint8_t *data, size_t length,
                     uint8_t mac[OSCORE_MAC]) {
    (void)key;
    (void)key_length;
    (void)data;
    memset(mac, (int)length, OSCORE_MAC);
}

static void lax_seal(const uint8_t key[OSCORE_KEY], const uint8_t nonce[OSCORE_NONCE],
                     const uint8_t *associated, size_t associated_length, uint8_t *data,
                     size_t length) {
    (void)key;
    (void)nonce;
    (void)associated;
    memset(data + length, (int)associated_length | 1, OSCORE_TAG);
}

static bool lax_open(const uint8_t key[OSCORE_KEY], const uint8_t nonce[OSCORE_NONCE],
                     const uint8_t *associated, size_t associated_length, uint8_t *data,
                     size_t length) {
    (void)key;
    (void)nonce;
    (void)associated;
    (void)associated_length;
    return (data[length] & 1) != 0;
}

static const struct oscore_crypto lax = {lax_hmac, lax_seal, lax_open};

static struct coap_endpoint endpoint;
static size_t under_way; /* as the callbacks tell it */

static void on_transmit(void *ctx, const uint8_t *message, size_t length) {
    struct coap_message parsed;
    (void)ctx;
    CHECK(coap_parse(&parsed, message, length));
}

static void send_one(uint64_t now) {
    struct coap_builder builder;
    if (coap_request_begin(&endpoint, &builder, COAP_GET)) {
        coap_build_path(&builder, "file/1");
        CHECK(coap_request_send(&endpoint, &builder, 1, now));
        under_way++;
    }
}

static void on_response(void *ctx, uint32_t tag, enum coap_outcome outcome,
                        const struct coap_message *response) {
    (void)ctx;
    (void)tag;
    CHECK((outcome == COAP_RESPONSE || outcome == COAP_UNPROTECTED) == (response != NULL));
    CHECK(under_way > 0);
    under_way--;
    if (response != NULL && response->code == COAP_CONTENT) {
        send_one(0);
    }
}

static void on_request(void *ctx, const struct coap_message *request, struct coap_builder *reply) {
    (void)ctx;
    /* An echo: of any length, so also one that does not fit. */
    coap_build_code(reply, COAP_CONTENT);
    coap_build_cbor(reply, request->payload, request->payload_length);
}

/* The input as a list of messages: a byte of length, a byte of time, the message. Its bytes 1 to 8
 * are made to fit a request under way when the time is odd. */
static void run_endpoint(const uint8_t *data, size_t size, struct oscore_context *security) {
    static const struct coap_callbacks callbacks = {on_transmit, on_response, on_request, NULL};
    uint64_t now = 0;
    coap_endpoint_init(&endpoint, &callbacks, security, 1);
    under_way = 0;
    send_one(now);
    send_one(now);
    while (size >= 2) {
        uint8_t message[256];
        const size_t length = data[0] < size - 2 ? data[0] : size - 2;
        const struct coap_exchange *exchange = &endpoint.exchanges[data[1] / 2 % COAP_EXCHANGES];
        memcpy(message, data + 2, length);
        if ((data[1] & 1) != 0 && length >= 8) {
            memcpy(message + 2, exchange->message + 2, 6); /* message ID and token */
        }
        now += (uint64_t)data[1] << 16;
        coap_endpoint_receive(&endpoint, message, length, now);
        coap_endpoint_poll(&endpoint, now);
        CHECK(coap_requests_pending(&endpoint) == under_way);
        data += 2 + length;
        size -= 2 + length;
    }
    for (int i = 0; i < 10 && under_way > 0; i++) { /* everything ends some time */
        now = coap_endpoint_poll(&endpoint, now);
    }
    CHECK(under_way == 0 || now != COAP_NEVER);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    check_message(data, size);
    run_endpoint(data, size, NULL);
    struct oscore_context context;
    oscore_init(&context, &lax, (const uint8_t[OSCORE_MAC]){0}, "UB-000001", 1);
    context.window = (struct oscore_window){.open = true, .highest = 7, .seen = UINT32_MAX};
    run_endpoint(data, size, &context);
    return 0;
}
