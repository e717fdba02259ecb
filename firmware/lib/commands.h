/* The commands of a commanded update (docs/protocol.md): which is taken, and which is to be carried
 * out. One at a time; a repeated one is not carried out again. No hardware: the owner carries out
 * what is taken. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/result.h"

#define COMMAND_MAX_DATA 896u
#define COMMAND_DATA_SUM 8u /* bytes of the digest that a write carries */
#define COMMAND_DIGEST 32u

enum command_kind {
    COMMAND_ERASE,
    COMMAND_WRITE,
    COMMAND_CHECK,
    COMMAND_FINISH,
    COMMAND_LEAVE,
};

struct command_range {
    uint32_t offset; /* in the NOR */
    uint32_t size;   /* bytes; offset + size does not overflow */
};

struct command {
    enum command_kind kind;
    uint32_t update_id;
    uint32_t nonce;
    uint32_t step;         /* 1 or more */
    uint32_t offset;       /* of erase, write and check, else 0 */
    uint32_t length;       /* bytes; likewise */
    const uint8_t *data;   /* of a write: `length` bytes; else NULL */
    const uint8_t *digest; /* of a write COMMAND_DATA_SUM bytes, of a check COMMAND_DIGEST */
};

/* What is taken. */
struct command_rules {
    uint32_t update_id;
    uint32_t nonce;
    uint32_t block_size;        /* of the NOR, a power of two */
    struct command_range image; /* may be erased, written and checked */
    /* May be erased and nothing else: the digest of a byte would tell it. */
    struct command_range userdata;
    void (*sha256)(const uint8_t *data, uint32_t length, uint8_t digest[COMMAND_DIGEST]);
};

enum commands_state {
    COMMANDS_NONE,  /* since the start */
    COMMANDS_TAKEN, /* `command` is to be carried out, or being carried out */
    COMMANDS_DONE,
};

struct commands {
    const struct command_rules *rules;
    enum commands_state state;
    struct command command; /* the last that was taken; its step is 0 before the first */
    bool asked_again;       /* its result is wanted once more: the owner clears this */
    uint32_t fingerprint;   /* of its message */
    uint8_t data[COMMAND_MAX_DATA];
    uint8_t digest[COMMAND_DIGEST];
};

/* `rules` outlives it. */
void commands_init(struct commands *commands, const struct command_rules *rules);

/* False: the payload is no command of that kind. Points into the payload. */
bool command_decode(struct command *command, enum command_kind kind, const uint8_t *payload,
                    size_t length);

/* Takes a command that arrived, or not; `result` is what is answered. False: the payload is no
 * command at all. Nothing of the payload is needed after it. */
bool commands_take(struct commands *commands, enum command_kind kind, const uint8_t *payload,
                   size_t length, enum result *result);

/* What was taken has been carried out. */
void commands_done(struct commands *commands);
