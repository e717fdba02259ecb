#include "lib/commands.h"

#include <string.h>

#include "lib/assert.h"
#include "lib/cbor.h"
#include "lib/crc.h"

enum { ID, NONCE, STEP, OFFSET, FIFTH, SIXTH, FIELDS };

bool command_decode(struct command *command, enum command_kind kind, const uint8_t *payload,
                    size_t length) {
    ASSERT(kind <= COMMAND_LEAVE);
    struct cbor_field fields[FIELDS] = {
        [ID] = {.key = 1, .kind = CBOR_UINT, .minimum = 1, .maximum = UINT32_MAX},
        [NONCE] = {.key = 2, .kind = CBOR_UINT, .maximum = UINT32_MAX},
        [STEP] = {.key = 3, .kind = CBOR_UINT, .minimum = 1, .maximum = UINT32_MAX},
        [OFFSET] = {.key = 4, .kind = CBOR_UINT, .maximum = UINT32_MAX},
        [FIFTH] = {.key = 5, .kind = CBOR_UINT, .minimum = 1, .maximum = UINT32_MAX},
    };
    size_t count = OFFSET;
    if (kind == COMMAND_ERASE) {
        count = SIXTH;
    } else if (kind == COMMAND_WRITE || kind == COMMAND_CHECK) {
        const uint32_t size = kind == COMMAND_WRITE ? COMMAND_DATA_SUM : COMMAND_DIGEST;
        fields[SIXTH] =
            (struct cbor_field){.key = 6, .kind = CBOR_BYTES, .minimum = size, .maximum = size};
        count = FIELDS;
    }
    if (kind == COMMAND_WRITE) {
        fields[FIFTH].kind = CBOR_BYTES;
        fields[FIFTH].maximum = COMMAND_MAX_DATA;
    }
    for (size_t i = 0; i < count; i++) {
        fields[i].required = true;
    }
    if (cbor_decode_map(payload, length, fields, count) != CBOR_OK) {
        return false;
    }
    *command = (struct command){
        .kind = kind,
        .update_id = (uint32_t)fields[ID].number,
        .nonce = (uint32_t)fields[NONCE].number,
        .step = (uint32_t)fields[STEP].number,
    };
    if (count > OFFSET) {
        command->offset = (uint32_t)fields[OFFSET].number;
        command->length = (uint32_t)fields[FIFTH].number;
    }
    if (kind == COMMAND_WRITE) {
        command->data = fields[FIFTH].data;
        command->length = (uint32_t)fields[FIFTH].length;
    }
    command->digest = count == FIELDS ? fields[SIXTH].data : NULL;
    return true;
}

static bool is_within(const struct command *command, const struct command_range *range) {
    return command->offset >= range->offset && command->offset - range->offset <= range->size &&
           command->length <= range->size - (command->offset - range->offset);
}

/* Whether it may be carried out at all. */
static bool is_sound(const struct command *command, const struct command_rules *rules) {
    ASSERT(command->step > 0);
    if (command->kind == COMMAND_FINISH || command->kind == COMMAND_LEAVE) {
        return true;
    }
    if (command->kind == COMMAND_ERASE &&
        (command->offset % rules->block_size != 0 || command->length != rules->block_size)) {
        return false;
    }
    if (command->kind == COMMAND_WRITE) {
        uint8_t digest[COMMAND_DIGEST];
        rules->sha256(command->data, command->length, digest);
        if (memcmp(digest, command->digest, COMMAND_DATA_SUM) != 0) {
            return false;
        }
    }
    return is_within(command, &rules->image) ||
           (command->kind == COMMAND_ERASE && is_within(command, &rules->userdata));
}

/* Whether the end of a range is a number. */
static bool ends(const struct command_range *range) {
    return range->size <= UINT32_MAX - range->offset;
}

void commands_init(struct commands *commands, const struct command_rules *rules) {
    ASSERT(rules->block_size != 0 && (rules->block_size & (rules->block_size - 1)) == 0);
    ASSERT(ends(&rules->image) && ends(&rules->userdata));
    ASSERT(rules->sha256 != NULL);
    memset(commands, 0, sizeof *commands);
    commands->rules = rules;
}

static void keep(struct commands *commands, const struct command *command, uint32_t fingerprint) {
    ASSERT(commands->state != COMMANDS_TAKEN);
    ASSERT(command->data == NULL || command->length <= sizeof commands->data);
    commands->command = *command;
    commands->fingerprint = fingerprint;
    commands->state = COMMANDS_TAKEN;
    if (command->data) {
        memcpy(commands->data, command->data, command->length);
        commands->command.data = commands->data;
    }
    if (command->digest) {
        const size_t size = command->kind == COMMAND_WRITE ? COMMAND_DATA_SUM : COMMAND_DIGEST;
        memcpy(commands->digest, command->digest, size);
        commands->command.digest = commands->digest;
    }
}

/* It came before: then it is only its answer or its result that was lost. */
static enum result repeat(struct commands *commands, const struct command *command,
                          uint32_t fingerprint) {
    if (command->kind != commands->command.kind || fingerprint != commands->fingerprint) {
        return RESULT_OUT_OF_TURN; /* another command with the same number */
    }
    if (commands->state == COMMANDS_DONE) {
        commands->asked_again = true;
    }
    return RESULT_SUCCESS;
}

bool commands_take(struct commands *commands, enum command_kind kind, const uint8_t *payload,
                   size_t length, enum result *result) {
    const struct command_rules *const rules = commands->rules;
    struct command command;
    ASSERT(rules != NULL);
    ASSERT(payload != NULL || length == 0);
    if (!command_decode(&command, kind, payload, length)) {
        return false;
    }
    const uint32_t fingerprint = crc32(0, payload, length);
    if (command.update_id != rules->update_id || command.nonce != rules->nonce ||
        command.step < commands->command.step) {
        *result = RESULT_OUT_OF_TURN;
    } else if (command.step == commands->command.step) {
        *result = repeat(commands, &command, fingerprint);
    } else if (commands->state == COMMANDS_TAKEN) {
        *result = RESULT_BUSY;
    } else if (!is_sound(&command, rules)) {
        *result = RESULT_BAD_ANNOUNCEMENT;
    } else {
        keep(commands, &command, fingerprint);
        *result = RESULT_SUCCESS;
    }
    return true;
}

void commands_done(struct commands *commands) {
    ASSERT(commands->rules != NULL);
    ASSERT(commands->state == COMMANDS_TAKEN);
    commands->state = COMMANDS_DONE;
    commands->asked_again = false;
}
