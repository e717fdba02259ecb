#include "lib/cbor.h"
#include "lib/commands.h"
#include "tests/check.h"

enum { ID = 7, NONCE = 9, BLOCK = 256, MAX = 1200 };

static struct commands commands;
static uint8_t payload[MAX];
static size_t length;

static void digest_of(const uint8_t *data, uint32_t size, uint8_t digest[COMMAND_DIGEST]) {
    memset(digest, 0, COMMAND_DIGEST);
    for (uint32_t i = 0; i < size; i++) {
        digest[i % COMMAND_DIGEST] ^= data[i];
    }
}

static const struct command_rules rules = {
    .update_id = ID,
    .nonce = NONCE,
    .block_size = BLOCK,
    .image = {1024, 1024},
    .userdata = {4096, 512},
    .sha256 = digest_of,
};

static void begin(struct cbor_encoder *map, size_t pairs, uint32_t id, uint32_t nonce,
                  uint32_t step) {
    cbor_encoder_init(map, payload, sizeof payload);
    cbor_put_map(map, pairs);
    cbor_pair_uint(map, 1, id);
    cbor_pair_uint(map, 2, nonce);
    cbor_pair_uint(map, 3, step);
}

static void end(const struct cbor_encoder *map) {
    length = cbor_encoder_finish(map);
    CHECK(length > 0);
}

static void make_erase(uint32_t id, uint32_t nonce, uint32_t step, uint32_t offset, uint32_t size) {
    struct cbor_encoder map;
    begin(&map, 5, id, nonce, step);
    cbor_pair_uint(&map, 4, offset);
    cbor_pair_uint(&map, 5, size);
    end(&map);
}

static void make_write(uint32_t step, uint32_t offset, const void *data, uint32_t size) {
    struct cbor_encoder map;
    uint8_t digest[COMMAND_DIGEST];
    digest_of(data, size, digest);
    begin(&map, 6, ID, NONCE, step);
    cbor_pair_uint(&map, 4, offset);
    cbor_pair_bytes(&map, 5, data, size);
    cbor_pair_bytes(&map, 6, digest, COMMAND_DATA_SUM);
    end(&map);
}

static int take(enum command_kind kind) {
    enum result result;
    return commands_take(&commands, kind, payload, length, &result) ? (int)result : -1;
}

static int erase(uint32_t step, uint32_t offset) {
    make_erase(ID, NONCE, step, offset, BLOCK);
    return take(COMMAND_ERASE);
}

static void test_one_after_the_other(void) {
    commands_init(&commands, &rules);
    CHECK_EQUAL(commands.command.step, 0);
    CHECK_EQUAL(erase(3, 1024), RESULT_SUCCESS);
    CHECK(commands.state == COMMANDS_TAKEN && commands.command.offset == 1024);
    CHECK_EQUAL(erase(4, 1280), RESULT_BUSY);
    CHECK_EQUAL(erase(3, 1024), RESULT_SUCCESS); /* repeated: it is under way */
    CHECK(!commands.asked_again);
    commands_done(&commands);
    CHECK_EQUAL(erase(3, 1024), RESULT_SUCCESS); /* repeated: it is done */
    CHECK(commands.asked_again && commands.state == COMMANDS_DONE);
    commands.asked_again = false;
    CHECK_EQUAL(erase(3, 1280), RESULT_OUT_OF_TURN); /* another with the same number */
    CHECK_EQUAL(erase(2, 1024), RESULT_OUT_OF_TURN);
    CHECK(!commands.asked_again && commands.state == COMMANDS_DONE);
    CHECK_EQUAL(erase(4, 1280), RESULT_SUCCESS);
    CHECK_EQUAL(commands.command.step, 4);
}

static void test_of_this_start_and_update(void) {
    commands_init(&commands, &rules);
    make_erase(ID + 1, NONCE, 1, 1024, BLOCK);
    CHECK_EQUAL(take(COMMAND_ERASE), RESULT_OUT_OF_TURN);
    make_erase(ID, NONCE + 1, 1, 1024, BLOCK);
    CHECK_EQUAL(take(COMMAND_ERASE), RESULT_OUT_OF_TURN);
    CHECK_EQUAL(commands.state, COMMANDS_NONE);
    make_erase(ID, NONCE, 0, 1024, BLOCK);
    CHECK_EQUAL(take(COMMAND_ERASE), -1); /* steps begin with 1 */
}

static void test_ranges(void) {
    static const struct {
        uint32_t offset, size;
        bool good;
    } cases[] = {
        {1024, BLOCK, true},       {1792, BLOCK, true}, {4096, BLOCK, true},
        {4352, BLOCK, true},       {768, BLOCK, false}, {2048, BLOCK, false},
        {4608, BLOCK, false},      {0, BLOCK, false},   {1025, BLOCK, false},
        {1024, BLOCK - 1, false},  {1024, 512, false},  {UINT32_MAX - 255, BLOCK, false},
        {1024, UINT32_MAX, false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        commands_init(&commands, &rules);
        make_erase(ID, NONCE, 1, cases[i].offset, cases[i].size);
        CHECK_EQUAL(take(COMMAND_ERASE), cases[i].good ? RESULT_SUCCESS : RESULT_BAD_ANNOUNCEMENT);
        CHECK_EQUAL(commands.command.step, cases[i].good); /* the number is free again */
    }
}

static void test_writes(void) {
    static uint8_t data[COMMAND_MAX_DATA + 1];
    for (size_t i = 0; i < sizeof data; i++) {
        data[i] = (uint8_t)(i * 7 + 1);
    }
    commands_init(&commands, &rules);
    make_write(1, 1027, data, COMMAND_MAX_DATA);
    CHECK_EQUAL(take(COMMAND_WRITE), RESULT_SUCCESS);
    memset(payload, 0xEE, sizeof payload); /* the message is gone */
    CHECK_EQUAL(commands.command.length, COMMAND_MAX_DATA);
    CHECK(memcmp(commands.command.data, data, COMMAND_MAX_DATA) == 0);
    commands_done(&commands);
    make_write(2, 4096, data, 1); /* in the user's data */
    CHECK_EQUAL(take(COMMAND_WRITE), RESULT_BAD_ANNOUNCEMENT);
    make_write(2, 1024, data, COMMAND_MAX_DATA + 1);
    CHECK_EQUAL(take(COMMAND_WRITE), -1);
    make_write(2, 1024, data, 0);
    CHECK_EQUAL(take(COMMAND_WRITE), -1);
    make_write(2, 2047, data, 2);
    CHECK_EQUAL(take(COMMAND_WRITE), RESULT_BAD_ANNOUNCEMENT);
    make_write(2, 2047, data, 1);
    payload[length - 1] ^= 1; /* of the digest */
    CHECK_EQUAL(take(COMMAND_WRITE), RESULT_BAD_ANNOUNCEMENT);
    payload[length - 1] ^= 1;
    CHECK_EQUAL(take(COMMAND_WRITE), RESULT_SUCCESS);
}

static void test_the_others(void) {
    struct cbor_encoder map;
    uint8_t digest[COMMAND_DIGEST];
    memset(digest, 0x55, sizeof digest);
    commands_init(&commands, &rules);
    begin(&map, 6, ID, NONCE, 1);
    cbor_pair_uint(&map, 4, 1024);
    cbor_pair_uint(&map, 5, 1024);
    cbor_pair_bytes(&map, 6, digest, sizeof digest);
    end(&map);
    CHECK_EQUAL(take(COMMAND_WRITE), -1);
    CHECK_EQUAL(take(COMMAND_CHECK), RESULT_SUCCESS);
    memset(payload, 0, sizeof payload);
    CHECK(memcmp(commands.command.digest, digest, sizeof digest) == 0);
    commands_done(&commands);
    begin(&map, 3, ID, NONCE, 2);
    end(&map);
    CHECK_EQUAL(take(COMMAND_ERASE), -1);
    CHECK_EQUAL(take(COMMAND_FINISH), RESULT_SUCCESS);
    CHECK_EQUAL(take(COMMAND_LEAVE), RESULT_OUT_OF_TURN); /* the same number, another command */
    commands_done(&commands);
    payload[length - 1]++;
    CHECK_EQUAL(take(COMMAND_LEAVE), RESULT_SUCCESS);
    for (size_t i = 0; i < length; i++) {
        enum result result;
        CHECK(!commands_take(&commands, COMMAND_LEAVE, payload, i, &result));
    }
}

int main(void) {
    test_one_after_the_other();
    test_of_this_start_and_update();
    test_ranges();
    test_writes();
    test_the_others();
    return 0;
}
