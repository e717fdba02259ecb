/* Any bytes as a conversation with a commanded update: what is taken lies where it may, carries the
 * right numbers and digest, and no step is taken twice.
 *
 * Each message is a byte (kind, and in bit 7 whether what was taken before has been carried out),
 * its length in two bytes, and its payload. */
#include "lib/commands.h"
#include "tests/check.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ID = 7, NONCE = 9, BLOCK = 256, KINDS = 5 };

/* Stands in for the digest: the sum of the bytes. */
static void digest_of(const uint8_t *data, uint32_t length, uint8_t digest[COMMAND_DIGEST]) {
    memset(digest, 0, COMMAND_DIGEST);
    for (uint32_t i = 0; i < length; i++) {
        digest[0] = (uint8_t)(digest[0] + data[i]);
    }
}

static const struct command_rules rules = {
    .update_id = ID,
    .nonce = NONCE,
    .block_size = BLOCK,
    .image = {1024, 1024},
    .userdata = {4096, UINT32_MAX - 4096},
    .sha256 = digest_of,
};

static void check_taken(const struct command *command) {
    uint8_t digest[COMMAND_DIGEST];
    CHECK(command->update_id == ID && command->nonce == NONCE);
    if (command->kind == COMMAND_FINISH || command->kind == COMMAND_LEAVE) {
        CHECK(command->length == 0);
        return;
    }
    const uint64_t end = (uint64_t)command->offset + command->length;
    CHECK(command->length > 0);
    CHECK((command->offset >= 1024 && end <= 2048) ||
          (command->kind == COMMAND_ERASE && command->offset >= 4096));
    CHECK(end <= UINT32_MAX);
    if (command->kind == COMMAND_ERASE) {
        CHECK(command->offset % BLOCK == 0 && command->length == BLOCK);
    }
    if (command->kind == COMMAND_WRITE) {
        CHECK(command->length <= COMMAND_MAX_DATA);
        digest_of(command->data, command->length, digest);
        CHECK(memcmp(digest, command->digest, COMMAND_DATA_SUM) == 0);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static struct commands commands;
    commands_init(&commands, &rules);
    while (size >= 3) {
        const enum command_kind kind = (enum command_kind)(data[0] % 128 % KINDS);
        size_t length = (size_t)(data[1] | data[2] << 8);
        length = length < size - 3 ? length : size - 3;
        if (data[0] & 128 && commands.state == COMMANDS_TAKEN) {
            commands_done(&commands);
        }
        /* Of just this size, and gone afterwards. */
        uint8_t *const payload = malloc(length + (length == 0));
        CHECK(payload != NULL);
        memcpy(payload, data + 3, length);
        const enum commands_state before = commands.state;
        const uint32_t step = commands.command.step;
        enum result result = RESULT_COUNT;
        const bool known = commands_take(&commands, kind, payload, length, &result);
        free(payload);
        CHECK(known || (commands.command.step == step && commands.state == before));
        CHECK(known == (result != RESULT_COUNT));
        if (commands.command.step != step) {
            CHECK(result == RESULT_SUCCESS && before != COMMANDS_TAKEN);
            CHECK(commands.command.step > step && commands.state == COMMANDS_TAKEN);
            check_taken(&commands.command);
        } else {
            CHECK(commands.state == before);
            CHECK(result != RESULT_SUCCESS || before == COMMANDS_TAKEN || commands.asked_again);
        }
        commands.asked_again = false;
        data += 3 + length;
        size -= 3 + length;
    }
    return 0;
}
