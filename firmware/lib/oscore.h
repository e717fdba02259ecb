/* OSCORE (RFC 8613): protects the messages between this terminal and its server, end to end.
 *
 * What is here makes keys and nonces, and knows which numbers were seen. It does not know CoAP: a
 * plaintext is bytes. The cryptography is the caller's (struct oscore_crypto).
 *
 * The profile (docs/protocol.md, "Link security"): ChaCha20-Poly1305, HKDF-SHA-256, no Master Salt.
 * The terminal's Sender ID is empty, the server's is 0x01. The ID Context is the serial. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define OSCORE_KEY 32u      /* bytes, RFC 8439 */
#define OSCORE_NONCE 12u    /* bytes, RFC 8439 */
#define OSCORE_TAG 16u      /* bytes, RFC 8439 */
#define OSCORE_MAC 32u      /* bytes of a SHA-256 */
#define OSCORE_ALGORITHM 24 /* ChaCha20-Poly1305 (RFC 9053 §4.3) */

#define OSCORE_MAX_NUMBER 0xFFFFFFFFFFu /* of a message: 5 bytes (RFC 8613 §5) */
#define OSCORE_MAX_ID_CONTEXT 31u       /* bytes */
/* Of an option: flags, Partial IV, kid context with its length. The kid is empty. */
#define OSCORE_MAX_OPTION (1u + 5u + 1u + OSCORE_MAX_ID_CONTEXT)

/* A start of the terminal has so many numbers; the start's own count is above them. */
#define OSCORE_NUMBER_BITS 20u

struct oscore_crypto {
    void (*hmac)(const uint8_t *key, size_t key_length, const uint8_t *data, size_t length,
                 uint8_t mac[OSCORE_MAC]);
    /* Encrypts `length` bytes in place; the tag is put behind them. */
    void (*seal)(const uint8_t key[OSCORE_KEY], const uint8_t nonce[OSCORE_NONCE],
                 const uint8_t *associated, size_t associated_length, uint8_t *data, size_t length);
    /* Decrypts `length` bytes in place; the tag is behind them. False: it is another one. */
    bool (*open)(const uint8_t key[OSCORE_KEY], const uint8_t nonce[OSCORE_NONCE],
                 const uint8_t *associated, size_t associated_length, uint8_t *data, size_t length);
};

/* Which of the server's numbers were seen: the highest, and bit n for n below it. */
struct oscore_window {
    bool open; /* it has a beginning: what is below may have been said to an earlier start */
    uint64_t highest;
    uint32_t seen;
};

struct oscore_context {
    const struct oscore_crypto *crypto;
    uint8_t sender_key[OSCORE_KEY];
    uint8_t recipient_key[OSCORE_KEY];
    uint8_t common_iv[OSCORE_NONCE];
    uint8_t id_context[OSCORE_MAX_ID_CONTEXT];
    size_t id_context_length;
    uint64_t next; /* number that a request may have */
    uint64_t end;  /* the first that it may not */
    struct oscore_window window;
};

/* What an OSCORE option says. */
struct oscore_option {
    bool has_number; /* a Partial IV */
    uint64_t number;
    bool has_kid;
    size_t kid_length;
    const uint8_t *kid;
    size_t id_context_length;
    const uint8_t *id_context; /* or NULL */
};

/* Makes the keys. `start` counts the terminal's starts, from 1; with 0 there is no number for any
 * request. The secret is of OSCORE_MAC bytes, the ID Context of OSCORE_MAX_ID_CONTEXT at most. */
void oscore_init(struct oscore_context *context, const struct oscore_crypto *crypto,
                 const uint8_t *secret, const char *id_context, uint32_t start);

/* A number for a request, which no other message ever has. False: there is none left. */
bool oscore_take_number(struct oscore_context *context, uint64_t *number);

/* The value of the option of a request with that number, OSCORE_MAX_OPTION bytes at most. Returns
 * its length. */
size_t oscore_request_option(const struct oscore_context *context, uint64_t number,
                             uint8_t *option);

/* False: it is malformed (RFC 8613 §6.1). `option` points into `value`. */
bool oscore_read_option(struct oscore_option *option, const uint8_t *value, size_t length);

/* Protects a request of this terminal in place; the tag follows the `length` bytes. The same number
 * is for the same bytes only. */
void oscore_seal_request(const struct oscore_context *context, uint64_t number, uint8_t *data,
                         size_t length);

/* Opens the server's reply to the request with that number, in place: `length` bytes, tag included.
 * False: it is not the server's, or of another request. The first one with a number of the server's
 * own opens the window. */
bool oscore_open_reply(struct oscore_context *context, uint64_t number,
                       const struct oscore_option *option, uint8_t *data, size_t length);

/* Opens a request of the server in place: `length` bytes, tag included. False: it is not the
 * server's, it was seen, or it is from before this start. */
bool oscore_open_request(struct oscore_context *context, const struct oscore_option *option,
                         uint8_t *data, size_t length);

/* Protects the one reply to the server's request with that number in place; the tag follows the
 * `length` bytes. It has no number of its own: its option is empty. */
void oscore_seal_reply(const struct oscore_context *context, uint64_t number, uint8_t *data,
                       size_t length);

/* ---- What the keys and nonces are made of; for other algorithms, too ---- */

/* HKDF-SHA-256 (RFC 5869, one block) with what RFC 8613 §3.2.1 says. `what` is "Key" or "IV".
 * `id_context` may be NULL: there is none. Returns false when something is too long. */
struct oscore_derivation {
    const uint8_t *secret;
    size_t secret_length;
    const uint8_t *salt;
    size_t salt_length;
    const uint8_t *id_context;
    size_t id_context_length;
    uint8_t algorithm; /* COSE, 0 to 255 */
};
bool oscore_derive(const struct oscore_derivation *from, const struct oscore_crypto *crypto,
                   const uint8_t *id, size_t id_length, const char *what, uint8_t *out,
                   size_t length);

/* RFC 8613 §5.2; an id of `length - 6` bytes at most. */
void oscore_nonce(const uint8_t *common_iv, size_t length, const uint8_t *id, size_t id_length,
                  uint64_t number, uint8_t *nonce);

/* What is authenticated besides the plaintext (RFC 8613 §5.4), of OSCORE_MAX_ASSOCIATED bytes at
 * most. Returns its length. The request's kid has 1 byte at most. */
#define OSCORE_MAX_ASSOCIATED 32u
size_t oscore_associate(uint8_t algorithm, const uint8_t *kid, size_t kid_length, uint64_t number,
                        uint8_t associated[OSCORE_MAX_ASSOCIATED]);
