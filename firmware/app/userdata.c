#include "app/userdata.h"

#include <string.h>

#include "app/identity.h"
#include "app/prompt.h"
#include "app/storage.h"
#include "board/seal.h"
#include "board/uart.h"
#include "board/verify.h"
#include "lib/cbor.h"
#include "lib/phonebook_pack.h"

#define PIECE 768u
#define SEALED_MAX (24u * 1024u)

enum held { HOLDS_NOTHING, HOLDS_BACKUP, HOLDS_PIECES };

/* One buffer for both ways: what has been sealed, or what has come back of it. In clear it is there
   only while a function runs. */
static struct {
    enum held holds;
    uint32_t update_id;
    uint32_t size; /* bytes, of all that is sealed */
    uint8_t digest[32];
    uint32_t next; /* offset of the piece that is wanted; `size`: all is stored */
    bool rebuilt;  /* since this start: what is in the NOR was written anew */
    uint8_t sealed[SEALED_MAX];
} userdata;

static void drain(void *ctx) {
    (void)ctx;
    uart_poll();
}

/* False: this terminal has no key to seal with. */
static bool bind(struct seal_binding *binding, uint32_t update_id) {
    *binding = (struct seal_binding){.key = terminal_id_key(), .number = update_id};
    memcpy(binding->serial, identity()->terminal.serial, sizeof binding->serial);
    return binding->key != NULL;
}

/* ---- Backing up ---- */

static enum result make_backup(uint32_t update_id) {
    const struct phonebook *book = storage_phonebook();
    struct seal_binding binding;
    userdata.holds = HOLDS_NOTHING;
    if (!bind(&binding, update_id)) {
        return RESULT_BACKUP_UNREADABLE;
    }
    if (book->error != PHONEBOOK_OK) {
        return RESULT_USERDATA_UNREADABLE;
    }
    const size_t length = phonebook_pack(book, userdata.sealed + SEAL_HEAD_SIZE,
                                         SEALED_MAX - SEAL_OVERHEAD, drain, NULL);
    if (length == 0) {
        return RESULT_NO_ROOM; /* cannot be: the phonebook's capacity sees to that */
    }
    seal(&binding, userdata.sealed, length, drain, NULL);
    userdata.size = (uint32_t)length + SEAL_OVERHEAD;
    verify_sha256(userdata.sealed, userdata.size, userdata.digest, drain, NULL);
    userdata.update_id = update_id;
    userdata.holds = HOLDS_BACKUP;
    return RESULT_SUCCESS;
}

enum result userdata_unchanged(uint32_t update_id, const uint8_t digest[32]) {
    const enum result result = make_backup(update_id);
    if (result != RESULT_SUCCESS) {
        return result;
    }
    if (memcmp(userdata.digest, digest, sizeof userdata.digest) != 0) {
        return RESULT_USERDATA_CHANGED;
    }
    const int error = recordlog_drop_older(&storage_phonebook()->log);
    return error == RECORDLOG_OK ? RESULT_SUCCESS : RESULT_PROGRAM_FAILED;
}

static void put_result(struct cbor_encoder *map, size_t pairs, enum result result) {
    cbor_put_map(map, pairs);
    cbor_pair_uint(map, 1, result);
}

static void answer(struct coap_builder *reply, const struct cbor_encoder *map) {
    coap_build_code(reply, COAP_CHANGED);
    coap_build_cbor(reply, map->buffer, cbor_encoder_finish(map));
}

static void answer_piece(struct coap_builder *reply, uint32_t offset) {
    const uint32_t rest = userdata.size - offset;
    const uint32_t length = rest < PIECE ? rest : PIECE;
    uint8_t payload[PIECE + 64];
    struct cbor_encoder map;
    cbor_encoder_init(&map, payload, sizeof payload);
    put_result(&map, 4, RESULT_SUCCESS);
    cbor_pair_uint(&map, 2, userdata.size);
    cbor_pair_bytes(&map, 3, userdata.digest, sizeof userdata.digest);
    cbor_pair_bytes(&map, 4, userdata.sealed + offset, length);
    answer(reply, &map);
    if (length == rest) {
        console_say("update: user's data backed up, %u entries", storage_phonebook()->count);
    }
}

static void answer_result(struct coap_builder *reply, enum result result) {
    uint8_t payload[8];
    struct cbor_encoder map;
    cbor_encoder_init(&map, payload, sizeof payload);
    put_result(&map, 1, result);
    answer(reply, &map);
}

void userdata_answer_backup(const struct coap_message *request, struct coap_builder *reply) {
    enum { ID, OFFSET, COUNT };
    struct cbor_field fields[COUNT] = {
        [ID] = {.key = 1, .kind = CBOR_UINT, .required = true, .minimum = 1, .maximum = UINT32_MAX},
        [OFFSET] = {.key = 2, .kind = CBOR_UINT, .required = true, .maximum = SEALED_MAX},
    };
    if (cbor_decode_map(request->payload, request->payload_length, fields, COUNT) != CBOR_OK ||
        fields[OFFSET].number % PIECE != 0) {
        coap_build_code(reply, COAP_BAD_REQUEST);
        return;
    }
    const uint32_t update_id = (uint32_t)fields[ID].number;
    const uint32_t offset = (uint32_t)fields[OFFSET].number;
    enum result result = RESULT_SUCCESS;
    if (offset == 0) {
        result = make_backup(update_id);
        if (result != RESULT_SUCCESS) {
            console_say("update: user's data not backed up, %s", result_text(result));
        }
    } else if (userdata.holds != HOLDS_BACKUP || userdata.update_id != update_id ||
               offset >= userdata.size) {
        result = RESULT_OUT_OF_TURN;
    }
    if (result == RESULT_SUCCESS) {
        answer_piece(reply, offset);
    } else {
        answer_result(reply, result);
    }
}

/* ---- Taking back ---- */

static enum result result_of(int error) {
    switch (error) {
    case PHONEBOOK_OK:
        return RESULT_SUCCESS;
    case PHONEBOOK_NO_ROOM:
    case RECORDLOG_FULL:
        return RESULT_NO_ROOM;
    case RECORDLOG_WRITE:
        return RESULT_PROGRAM_FAILED;
    default:
        return RESULT_USERDATA_UNREADABLE;
    }
}

/* Whether what is in the NOR can be weak: the update did not end well, power may have been lost
   while the user's data was being erased for it. Once it has been written anew it is sure. */
static bool is_doubtful(void) {
    const struct journal_state *state = &storage_journal()->state;
    const bool ended_well = state->phase == JOURNAL_IDLE && state->result == RESULT_SUCCESS &&
                            state->update_id == userdata.update_id;
    return !ended_well && !userdata.rebuilt;
}

/* All pieces are there. The buffer holds nothing of it afterwards. */
static enum result store(void) {
    struct phonebook *book = storage_phonebook();
    struct seal_binding binding;
    struct phonebook_packed packed;
    uint8_t digest[32];
    uint32_t stored = 0;
    enum result result = RESULT_SUCCESS;
    verify_sha256(userdata.sealed, userdata.size, digest, drain, NULL);
    if (memcmp(digest, userdata.digest, sizeof digest) != 0) {
        result = RESULT_FILE_DIGEST;
    } else if (!bind(&binding, userdata.update_id) ||
               !seal_open(&binding, userdata.sealed, userdata.size) ||
               !phonebook_unpack(&packed, userdata.sealed + SEAL_HEAD_SIZE,
                                 userdata.size - SEAL_OVERHEAD)) {
        result = RESULT_BACKUP_UNREADABLE;
    } else if (book->error != PHONEBOOK_OK) {
        result = RESULT_USERDATA_UNREADABLE;
    } else {
        const bool doubtful = is_doubtful();
        result = result_of(phonebook_restore(book, &packed, doubtful, &stored, drain, NULL));
        userdata.rebuilt = userdata.rebuilt || (doubtful && result == RESULT_SUCCESS);
    }
    seal_wipe(userdata.sealed, userdata.size);
    if (result == RESULT_SUCCESS) {
        console_say("update: user's data given back, %u entries, %u of them stored", packed.count,
                    stored);
    } else {
        console_say("update: user's data not given back, %s", result_text(result));
    }
    return result;
}

struct piece {
    uint32_t update_id;
    uint32_t size;
    const uint8_t *digest;
    uint32_t offset;
    const uint8_t *data;
    uint32_t length;
};

static bool get_piece(const struct coap_message *request, struct piece *piece) {
    enum { ID, SIZE, DIGEST, OFFSET, DATA, COUNT };
    struct cbor_field fields[COUNT] = {
        [ID] = {.key = 1, .kind = CBOR_UINT, .minimum = 1, .maximum = UINT32_MAX},
        [SIZE] = {.key = 2, .kind = CBOR_UINT, .minimum = 1, .maximum = SEALED_MAX},
        [DIGEST] = {.key = 3, .kind = CBOR_BYTES, .minimum = 32, .maximum = 32},
        [OFFSET] = {.key = 4, .kind = CBOR_UINT, .maximum = SEALED_MAX},
        [DATA] = {.key = 5, .kind = CBOR_BYTES, .minimum = 1, .maximum = PIECE},
    };
    for (size_t i = 0; i < COUNT; i++) {
        fields[i].required = true;
    }
    if (cbor_decode_map(request->payload, request->payload_length, fields, COUNT) != CBOR_OK) {
        return false;
    }
    *piece = (struct piece){
        .update_id = (uint32_t)fields[ID].number,
        .size = (uint32_t)fields[SIZE].number,
        .digest = fields[DIGEST].data,
        .offset = (uint32_t)fields[OFFSET].number,
        .data = fields[DATA].data,
        .length = (uint32_t)fields[DATA].length,
    };
    const uint32_t rest = piece->size - piece->offset;
    return piece->offset < piece->size && piece->offset % PIECE == 0 &&
           piece->length == (rest < PIECE ? rest : PIECE);
}

static bool continues(const struct piece *piece) {
    return userdata.holds == HOLDS_PIECES && userdata.update_id == piece->update_id &&
           userdata.size == piece->size &&
           memcmp(userdata.digest, piece->digest, sizeof userdata.digest) == 0;
}

static void begin(const struct piece *piece) {
    userdata.holds = HOLDS_PIECES;
    userdata.update_id = piece->update_id;
    userdata.size = piece->size;
    memcpy(userdata.digest, piece->digest, sizeof userdata.digest);
    userdata.next = 0;
}

static enum result take(const struct piece *piece) {
    if (piece->offset == 0) {
        begin(piece);
    } else if (!continues(piece)) {
        userdata.holds = HOLDS_NOTHING;
        userdata.next = 0;
    }
    if (userdata.holds == HOLDS_NOTHING || piece->offset != userdata.next) {
        return RESULT_SUCCESS; /* the answer says which one is wanted */
    }
    memcpy(userdata.sealed + piece->offset, piece->data, piece->length);
    userdata.next += piece->length;
    if (userdata.next < userdata.size) {
        return RESULT_SUCCESS;
    }
    const enum result result = store();
    if (result != RESULT_SUCCESS) {
        userdata.holds = HOLDS_NOTHING;
    }
    return result;
}

void userdata_answer_restore(const struct coap_message *request, struct coap_builder *reply) {
    struct piece piece;
    if (!get_piece(request, &piece)) {
        coap_build_code(reply, COAP_BAD_REQUEST);
        return;
    }
    const enum result result = take(&piece);
    if (result != RESULT_SUCCESS) {
        answer_result(reply, result);
        return;
    }
    uint8_t payload[16];
    struct cbor_encoder map;
    cbor_encoder_init(&map, payload, sizeof payload);
    put_result(&map, 2, RESULT_SUCCESS);
    cbor_pair_uint(&map, 2, userdata.next);
    answer(reply, &map);
}
