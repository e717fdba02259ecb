/* The CBOR maps of docs/protocol.md, as resident program and application exchange them with the
 * server. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "lib/coap.h"
#include "lib/image.h"
#include "lib/result.h"

#define MAPS_VERSION_SIZE 32u
/* Bytes that are enough for any map that is sent. */
#define MAPS_MAX 320u

/* What a file is (announcement, key 2). */
enum file_kind { KIND_FULL_IMAGE = 0, KIND_DIFFERENTIAL = 1 }; /* of an announcement */

enum terminal_state { TERMINAL_RUNS = 0, TERMINAL_IN_RESTORATION = 1, TERMINAL_COMMANDED = 2 };

/* Numbered as in docs/protocol.md, "report" and "status". */
enum update_phase {
    UPDATE_IDLE = 0,
    UPDATE_TRANSFERRING = 1,
    UPDATE_RECEIVED = 2,
    UPDATE_CHECKED = 3,
    UPDATE_REWRITING = 4,
    UPDATE_FINISHED = 5,
    UPDATE_COMMANDED = 6, /* only in a status */
};

/* What a terminal is and runs: the first six are said in registrations and reports alike. Texts are
 * empty, and the digest is all zero, when that is not known. */
struct registration {
    const char *serial;
    const char *hardware_id;
    const char *name;
    const char *version; /* with the build number: "1.1.0+0" */
    const char *build_time;
    const uint8_t *digest; /* IMAGE_DIGEST_SIZE bytes */
    enum terminal_state state;
    uint32_t last_id;
    uint32_t last_result; /* enum result */
    uint32_t security_counter;
    uint32_t nonce; /* only with TERMINAL_COMMANDED */
};

struct announcement {
    uint32_t id;
    uint32_t kind;
    uint32_t size; /* bytes of the file */
    uint8_t file_digest[32];
    char version[MAPS_VERSION_SIZE];
    uint8_t image_digest[IMAGE_DIGEST_SIZE];
    uint32_t image_size;
    uint32_t working_memory;
};

/* The start of a commanded update. */
struct upgrade {
    uint32_t id;
    struct image_version version;
    uint8_t digest[IMAGE_DIGEST_SIZE]; /* of the image it becomes */
    uint32_t size;                     /* bytes of it */
    uint8_t signature[IMAGE_SIGNATURE_SIZE];
    char hardware_id[IMAGE_MAX_TEXT + 1];
    uint32_t security_counter;
    uint8_t backup[32]; /* SHA-256 of the sealed backup */
};

/* Adds a registration to a request, as its payload. */
void maps_put_registration(struct coap_builder *request, const struct registration *registration);

/* Adds a report: how far this terminal is with the update `id`. */
void maps_put_report(struct coap_builder *request, const struct registration *me, uint32_t id,
                     enum update_phase phase, enum result result);

/* False: the payload is no announcement. */
bool maps_get_announcement(const struct coap_message *request, struct announcement *announcement);

/* False: the payload starts no commanded update. */
bool maps_get_upgrade(const struct coap_message *request, struct upgrade *upgrade);

/* Answers an announcement. Sizes in bytes; `text` is for a person. */
void maps_answer_decision(struct coap_builder *reply, enum result result, uint64_t needed,
                          uint64_t possible, const char *text);

/* Answers a request for the status. */
void maps_answer_status(struct coap_builder *reply, enum update_phase phase, uint32_t id,
                        uint32_t received, uint32_t size);
