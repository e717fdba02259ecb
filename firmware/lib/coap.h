/* CoAP (RFC 7252) with block-wise GET (RFC 7959): messages, and one endpoint with one peer.
 *
 * Nothing here knows sockets or clocks: frames and the time (microseconds, any origin) are passed
 * in, frames come out through a callback. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/oscore.h"

enum coap_type { COAP_CON = 0, COAP_NON = 1, COAP_ACK = 2, COAP_RST = 3 };

#define COAP_CODE(class_, detail) ((uint8_t)(((class_) << 5) | (detail)))
#define COAP_CODE_CLASS(code) ((code) >> 5)
#define COAP_CODE_DETAIL(code) ((code) & 0x1Fu)
enum {
    COAP_EMPTY = 0,
    COAP_GET = COAP_CODE(0, 1),
    COAP_POST = COAP_CODE(0, 2),
    COAP_CREATED = COAP_CODE(2, 1),
    COAP_CHANGED = COAP_CODE(2, 4),
    COAP_CONTENT = COAP_CODE(2, 5),
    COAP_BAD_REQUEST = COAP_CODE(4, 0),
    COAP_UNAUTHORIZED = COAP_CODE(4, 1),
    COAP_BAD_OPTION = COAP_CODE(4, 2),
    COAP_NOT_FOUND = COAP_CODE(4, 4),
    COAP_METHOD_NOT_ALLOWED = COAP_CODE(4, 5),
    COAP_NOT_ACCEPTABLE = COAP_CODE(4, 6),
    COAP_UNSUPPORTED_FORMAT = COAP_CODE(4, 15),
    COAP_INTERNAL_ERROR = COAP_CODE(5, 0),
    COAP_SERVICE_UNAVAILABLE = COAP_CODE(5, 3),
    COAP_PROXYING_NOT_SUPPORTED = COAP_CODE(5, 5),
};

enum {
    COAP_OPTION_URI_HOST = 3,
    COAP_OPTION_ETAG = 4,
    COAP_OPTION_URI_PORT = 7,
    COAP_OPTION_OSCORE = 9,
    COAP_OPTION_URI_PATH = 11,
    COAP_OPTION_CONTENT_FORMAT = 12,
    COAP_OPTION_URI_QUERY = 15,
    COAP_OPTION_ACCEPT = 17,
    COAP_OPTION_BLOCK2 = 23,
    COAP_OPTION_PROXY_URI = 35,
    COAP_OPTION_PROXY_SCHEME = 39,
    COAP_OPTION_ECHO = 252,
};

enum { COAP_FORMAT_LINKS = 40, COAP_FORMAT_OCTETS = 42, COAP_FORMAT_CBOR = 60 };

/* Where a peer asks which resources there are (RFC 6690 §4). */
#define COAP_DISCOVERY ".well-known/core"

#define COAP_MAX_TOKEN 8u
#define COAP_MAX_ECHO 40u /* bytes (RFC 9175 §2.2.1) */

/* ---- Messages ---- */

struct coap_message {
    enum coap_type type;
    uint8_t code;
    uint16_t mid;
    uint8_t token_length;
    uint8_t token[COAP_MAX_TOKEN];
    const uint8_t *options; /* as encoded, checked by coap_parse */
    size_t options_length;
    const uint8_t *payload;
    size_t payload_length;
};

struct coap_option {
    uint16_t number;
    uint16_t length;
    const uint8_t *value;
};

struct coap_option_iterator {
    const uint8_t *next;
    const uint8_t *end;
    uint16_t number;
};

/* False: not a well-formed message (RFC 7252 §3); `message` is then of no use. It points into
 * `data`. All options are checked here, so that iterating cannot fail. */
bool coap_parse(struct coap_message *message, const uint8_t *data, size_t length);

void coap_options(const struct coap_message *message, struct coap_option_iterator *iterator);
bool coap_next_option(struct coap_option_iterator *iterator, struct coap_option *option);

/* The first option with that number. */
bool coap_find_option(const struct coap_message *message, uint16_t number,
                      struct coap_option *option);

/* The value of an option in uint format; false when it is longer than 4 bytes. */
bool coap_option_uint(const struct coap_option *option, uint32_t *value);

/* Whether the Uri-Path options spell `path`: segments separated by '/', no leading '/'. */
bool coap_path_is(const struct coap_message *message, const char *path);

/* The Content-Format, or -1 without one (or with a malformed one). */
int32_t coap_content_format(const struct coap_message *message);

struct coap_block {
    uint32_t number;
    bool more;
    uint8_t szx; /* the block's size is 16 << szx bytes; 0 to 6 */
};

#define COAP_BLOCK_SIZE(szx) (16u << (szx))

/* The Block2 option; false when there is none or it is malformed (longer than 3 bytes, SZX 7). */
bool coap_block2(const struct coap_message *message, struct coap_block *block);

/* Builder: writes a message front to back into a bounded buffer. Errors (too long, option out of
 * order) stick, coap_build_finish tells. */
struct coap_builder {
    uint8_t *buffer;
    size_t size;
    size_t length;
    uint16_t last_option;
    bool has_payload;
    bool failed;
};

void coap_build(struct coap_builder *builder, uint8_t *buffer, size_t size, enum coap_type type,
                uint8_t code, uint16_t mid, const uint8_t *token, uint8_t token_length);
void coap_build_code(struct coap_builder *builder, uint8_t code);
/* Options in ascending order of their numbers. */
void coap_build_option(struct coap_builder *builder, uint16_t number, const void *value,
                       size_t length);
void coap_build_option_uint(struct coap_builder *builder, uint16_t number, uint32_t value);
void coap_build_path(struct coap_builder *builder, const char *path); /* "file/7": two options */
void coap_build_block2(struct coap_builder *builder, const struct coap_block *block);
void coap_build_payload(struct coap_builder *builder, const void *data, size_t length);

/* Writing a payload in place: the room that is left for it, then how much of it was used. */
uint8_t *coap_build_payload_room(struct coap_builder *builder, size_t *room);
void coap_build_payload_used(struct coap_builder *builder, size_t length);

/* Content-Format CBOR and the payload, for the usual case. */
void coap_build_cbor(struct coap_builder *builder, const void *data, size_t length);

/* The length of the message in bytes; 0 when something went wrong. */
size_t coap_build_finish(const struct coap_builder *builder);

/* ---- Endpoint ---- */

#define COAP_EXCHANGES 6u     /* requests under way at the same time */
#define COAP_MAX_REQUEST 512u /* bytes, of a request that is sent */
#define COAP_REPLIES 4u       /* received requests whose reply is remembered */
#define COAP_MAX_REPLY 1024u  /* bytes, of a reply that is sent: one has a piece of 768 bytes */
#define COAP_ACK_TIMEOUT_US 2000000u
#define COAP_MAX_RETRANSMIT 4u
/* How long a message ID counts as the same message, and how long a response is waited for after
 * its request was acknowledged without one: EXCHANGE_LIFETIME and MAX_TRANSMIT_WAIT of RFC 7252
 * §4.8.2. */
#define COAP_EXCHANGE_LIFETIME_US 247000000u
#define COAP_SEPARATE_TIMEOUT_US 93000000u
#define COAP_NEVER UINT64_MAX
/* How often in a row a request is sent again because the peer wants to see it arrive (RFC 9175). */
#define COAP_MAX_ECHOES 3u
/* Bytes that protection adds at most: the option with its head, the inner code, the marker of an
 * empty payload, the tag; and the Echo option. */
#define COAP_PROTECTION (2u + OSCORE_MAX_OPTION + 1u + 1u + OSCORE_TAG)
#define COAP_REPLY_PROTECTION (1u + 1u + 1u + OSCORE_TAG)
#define COAP_ECHO_SIZE (3u + COAP_MAX_ECHO)

enum coap_outcome {
    COAP_RESPONSE,    /* the peer answered, whatever the code */
    COAP_TIMEOUT,     /* it did not, after the last retransmission */
    COAP_REJECTED,    /* RST, or a response with a critical option that is not recognised */
    COAP_UNPROTECTED, /* a response that anybody may have sent: only a person may be told of it */
};

struct coap_callbacks {
    /* Send one message to the peer. */
    void (*transmit)(void *ctx, const uint8_t *message, size_t length);
    /* A request that was sent is over. `tag` is what coap_request_send was given; `response` is
     * NULL unless the outcome is COAP_RESPONSE or COAP_UNPROTECTED, and valid during the call. The
     * exchange is free again: sending the next request from here is allowed. */
    void (*response)(void *ctx, uint32_t tag, enum coap_outcome outcome,
                     const struct coap_message *response);
    /* A request came in; not called for duplicates, nor, with protection, for what is not the
     * peer's (that is answered 4.01). `reply` is a message under construction with
     * code 4.04: set the code, add options and payload. It is sent when the call returns. These
     * requests do not get here: those with a critical option that is not recognised (4.02, or
     * silence when it is non-confirmable), those for a proxy (5.05), and those that accept neither
     * CBOR nor, from COAP_DISCOVERY, links (4.06). */
    void (*request)(void *ctx, const struct coap_message *request, struct coap_builder *reply);
    void *ctx;
};

enum coap_exchange_state { COAP_FREE, COAP_BUILDING, COAP_SENT, COAP_ACKNOWLEDGED };

struct coap_exchange {
    enum coap_exchange_state state;
    uint32_t tag;
    uint32_t token;
    uint16_t mid;
    uint8_t transmissions;
    uint64_t deadline;
    uint64_t number; /* that it is protected with: its bytes are the same each time then */
    uint8_t echoes;  /* how often the peer wanted it again */
    uint8_t echo_length;
    uint8_t echo[COAP_MAX_ECHO];
    size_t length;
    uint8_t message[COAP_MAX_REQUEST]; /* unprotected, without Echo */
};

struct coap_reply {
    bool used;
    uint16_t mid;
    uint32_t digest; /* CRC-32 of the request: a peer that started again may reuse a message ID */
    uint64_t expires;
    size_t length; /* 0: nothing is sent again */
    uint8_t message[COAP_MAX_REPLY + COAP_REPLY_PROTECTION];
};

struct coap_endpoint {
    const struct coap_callbacks *callbacks;
    struct oscore_context *security; /* or NULL */
    uint32_t next_token;
    uint16_t next_mid;
    struct coap_exchange exchanges[COAP_EXCHANGES];
    struct coap_reply replies[COAP_REPLIES];
    uint8_t outgoing[COAP_MAX_REQUEST + COAP_PROTECTION + COAP_ECHO_SIZE]; /* a request, as sent */
    uint8_t answer[COAP_MAX_REPLY]; /* a reply before it is protected */
};

/* `seed` sets where message IDs and tokens begin; take one that differs from start to start. With
 * `security` (else NULL) every message but empty ones and refusals is protected, and nothing is
 * believed that is not. */
void coap_endpoint_init(struct coap_endpoint *endpoint, const struct coap_callbacks *callbacks,
                        struct oscore_context *security, uint32_t seed);

/* Begin a confirmable request: `builder` is ready for options and payload. False when all exchanges
 * are under way. A request that was begun and not sent is forgotten by the next one. */
bool coap_request_begin(struct coap_endpoint *endpoint, struct coap_builder *builder, uint8_t code);

/* Send what was begun. False when building failed, or no number is left to protect it with; nothing
 * is sent then and no callback follows. */
bool coap_request_send(struct coap_endpoint *endpoint, const struct coap_builder *builder,
                       uint32_t tag, uint64_t now);

/* Forget the requests with this tag, without a callback. */
void coap_request_cancel(struct coap_endpoint *endpoint, uint32_t tag);

/* Requests under way. */
size_t coap_requests_pending(const struct coap_endpoint *endpoint);

/* A message came from the peer. It is opened in place. */
void coap_endpoint_receive(struct coap_endpoint *endpoint, uint8_t *data, size_t length,
                           uint64_t now);

/* Do what is due. Returns when there is something to do next, or COAP_NEVER; call again then, and
 * after every call of another function here. */
uint64_t coap_endpoint_poll(struct coap_endpoint *endpoint, uint64_t now);
