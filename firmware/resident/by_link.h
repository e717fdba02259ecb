/* The resident program's side of the wireless link: registers with the server, answers its status,
 * and takes a full image. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/result.h"
#include "link/radio.h"
#include "resident/terminal.h"

/* A whole file, as it was announced; not checked further. */
struct by_link_file {
    const uint8_t *data;
    uint32_t length; /* bytes */
    uint32_t update_id;
    const uint8_t *image_digest;
};

/* What a commanded update adds. */
struct by_link_commands {
    const struct radio_resource *resources; /* BY_LINK_COMMANDS at most */
    size_t resource_count;
    uint32_t nonce; /* registered */
    void (*status)(struct coap_builder *reply);
    /* A request with the tag BY_LINK_TAG_RESULT has ended. */
    void (*response)(enum coap_outcome outcome, const struct coap_message *response);
};

#define BY_LINK_COMMANDS 6u
#define BY_LINK_TAG_RESULT RADIO_TAG_OWNER

/* Begins; the first registration is sent by the first by_link_poll. `commands` is NULL in the
 * restoration state, else it outlives the call. */
void by_link_start(const struct terminal *terminal, const struct by_link_commands *commands);

/* Receives and sends, and begins nothing: for while the NOR is busy, or being hashed. */
void by_link_tick(void);

/* Does what is due. `now` in microseconds. `room`: bytes at the pool's end that it may use for a
 * file that is announced now. `quiet`: nothing may be said on the wire. */
void by_link_poll(uint64_t now, uint32_t room, bool quiet);

/* Bytes at the pool's end that hold a file, or the part of it that has come. */
uint32_t by_link_held(void);

/* The file that has come, until one of the two below is called; NULL: there is none yet. */
const struct by_link_file *by_link_file(void);

/* It will never do: the server is told, and may announce another one. */
void by_link_refuse(enum result result);

/* It cannot be used now: asks the server again after a pause. */
void by_link_retry(const char *why);

/* Whether the server has taken the registration. */
bool by_link_registered(void);
