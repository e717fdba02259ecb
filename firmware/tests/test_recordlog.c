#include "lib/recordlog.h"
#include "tests/check.h"
#include "tests/sim_nor.h"

static const struct recordlog_config CONFIG = {
    .offset = 1024, .size = 1024, .magic = 0x21474F4C, .format = 1, .payload_size = 12};

static struct sim_nor nor;
static struct recordlog log_;

static void start(const struct recordlog_config *config) {
    sim_nor_init(&nor, 512, 7);
    CHECK_EQUAL(recordlog_mount(&log_, &nor.flash, config), RECORDLOG_OK);
    CHECK_EQUAL(recordlog_next(&log_, RECORDLOG_NONE), RECORDLOG_NONE);
}

static int append(uint8_t value) {
    uint8_t payload[12];
    memset(payload, value, sizeof payload);
    return recordlog_append(&log_, payload);
}

/* The first bytes of all records, oldest first, as a string. */
static const char *contents(void) {
    static char text[64];
    size_t length = 0;
    for (uint32_t offset = recordlog_next(&log_, RECORDLOG_NONE); offset != RECORDLOG_NONE;
         offset = recordlog_next(&log_, offset)) {
        CHECK(length + 1 < sizeof text);
        text[length++] = (char)*recordlog_payload(&log_, offset);
    }
    text[length] = '\0';
    return text;
}

static int remount(const struct recordlog_config *config) {
    sim_nor_start(&nor);
    return recordlog_mount(&log_, &nor.flash, config);
}

static bool is_not_b(void *ctx, const struct recordlog *log, uint32_t offset) {
    (void)ctx;
    return *recordlog_payload(log, offset) != 'b';
}

static void test_append_and_compact(void) {
    start(&CONFIG);
    CHECK_EQUAL(recordlog_slots(&log_), (512 - 64) / 16);
    CHECK_EQUAL(append('a'), RECORDLOG_OK);
    CHECK_EQUAL(append('b'), RECORDLOG_OK);
    CHECK_EQUAL(append('c'), RECORDLOG_OK);
    CHECK_TEXT(contents(), "abc");
    CHECK_EQUAL(remount(&CONFIG), RECORDLOG_OK);
    CHECK_TEXT(contents(), "abc");
    CHECK_EQUAL(recordlog_compact(&log_, is_not_b, NULL), RECORDLOG_OK);
    CHECK_TEXT(contents(), "ac");
    CHECK_EQUAL(append('d'), RECORDLOG_OK);
    CHECK_EQUAL(remount(&CONFIG), RECORDLOG_OK);
    CHECK_TEXT(contents(), "acd");
}

static void test_full(void) {
    start(&CONFIG);
    for (uint32_t i = 0; i < recordlog_slots(&log_); i++) {
        CHECK_EQUAL(append('x'), RECORDLOG_OK);
    }
    const uint32_t operations = nor.operations;
    CHECK_EQUAL(append('y'), RECORDLOG_FULL);
    CHECK_EQUAL(nor.operations, operations);
    CHECK_EQUAL(remount(&CONFIG), RECORDLOG_OK);
    CHECK_EQUAL(append('y'), RECORDLOG_FULL);
    CHECK_EQUAL(recordlog_compact(&log_, NULL, NULL), RECORDLOG_OK);
    CHECK_EQUAL(append('y'), RECORDLOG_OK);
    CHECK_TEXT(contents(), "y");
}

/* Generations are compared as serial numbers: they may run over. */
static void test_generation_runs_over(void) {
    start(&CONFIG);
    CHECK_EQUAL(append('a'), RECORDLOG_OK);
    log_.generation = UINT32_MAX - 3;
    CHECK_EQUAL(recordlog_compact(&log_, is_not_b, NULL), RECORDLOG_OK);
    CHECK_EQUAL(recordlog_compact(&log_, is_not_b, NULL), RECORDLOG_OK);
    for (int i = 0; i < 4; i++) {
        CHECK_EQUAL(recordlog_compact(&log_, is_not_b, NULL), RECORDLOG_OK);
        CHECK_EQUAL(append((uint8_t)('0' + i)), RECORDLOG_OK);
        const uint32_t generation = log_.generation;
        CHECK_EQUAL(remount(&CONFIG), RECORDLOG_OK);
        CHECK_EQUAL(log_.generation, generation);
    }
    CHECK_EQUAL(log_.generation, 2); /* UINT32_MAX - 1, and 4 more */
    CHECK_TEXT(contents(), "a0123");
}

static void test_other_format(void) {
    struct recordlog_config newer = CONFIG;
    newer.format = 2;
    start(&newer);
    CHECK_EQUAL(append('n'), RECORDLOG_OK);
    CHECK_EQUAL(remount(&CONFIG), RECORDLOG_OTHER_FORMAT);
    CHECK_EQUAL(log_.format, 2);
    const uint32_t operations = nor.operations;
    CHECK_EQUAL(append('x'), RECORDLOG_OTHER_FORMAT);
    CHECK_EQUAL(recordlog_affirm(&log_), RECORDLOG_OTHER_FORMAT);
    CHECK_EQUAL(recordlog_compact(&log_, NULL, NULL), RECORDLOG_OTHER_FORMAT);
    CHECK_EQUAL(nor.operations, operations);
    CHECK_EQUAL(remount(&newer), RECORDLOG_OK);
    CHECK_TEXT(contents(), "n");

    /* Formatting is the way out, and leaves nothing of the old records. */
    CHECK_EQUAL(recordlog_format(&log_, &nor.flash, &CONFIG), RECORDLOG_OK);
    for (uint32_t i = 0; i < CONFIG.size; i++) {
        CHECK(nor.cells[CONFIG.offset + i] != 'n');
    }
    CHECK_EQUAL(append('x'), RECORDLOG_OK);
    CHECK_EQUAL(remount(&CONFIG), RECORDLOG_OK);
    CHECK_TEXT(contents(), "x");
}

/* A torn slot is passed over, and cleared before anything is written behind it. */
static void test_torn_slot(void) {
    start(&CONFIG);
    CHECK_EQUAL(append('a'), RECORDLOG_OK);
    const uint32_t torn = log_.next;
    nor.cells[torn + 3] = 0x12;
    CHECK_EQUAL(remount(&CONFIG), RECORDLOG_OK);
    CHECK_EQUAL(append('b'), RECORDLOG_OK);
    CHECK_TEXT(contents(), "ab");
    for (uint32_t i = 0; i < 16; i++) {
        CHECK_EQUAL(nor.cells[torn + i], 0);
    }
}

/* Whatever the weak bits do at the next starts, the records stay. */
static void check_stays(const char *expected) {
    for (int i = 0; i < 32; i++) {
        CHECK_EQUAL(remount(&CONFIG), RECORDLOG_OK);
        CHECK_TEXT(contents(), expected);
    }
}

/* A program that was cut off before it left a trace: a bit of a blank slot is weak. */
static void test_weak_blank_slot(void) {
    for (uint32_t bit = 0; bit < 16 * 8; bit++) {
        start(&CONFIG);
        CHECK_EQUAL(append('a'), RECORDLOG_OK);
        nor.weak[log_.next + bit / 8] = (uint8_t)(1u << bit % 8);
        CHECK_EQUAL(recordlog_mount(&log_, &nor.flash, &CONFIG), RECORDLOG_OK);
        CHECK_EQUAL(append('b'), RECORDLOG_OK);
        check_stays("ab");
    }
}

/* A program that was cut off at its very end: a bit of the record is weak. */
static void test_weak_record(void) {
    for (uint32_t bit = 0; bit < 16 * 8; bit++) {
        start(&CONFIG);
        CHECK_EQUAL(append('a'), RECORDLOG_OK);
        const uint32_t at = log_.last + bit / 8;
        nor.weak[at] = (uint8_t)(~nor.cells[at] & (1u << bit % 8));
        CHECK_EQUAL(recordlog_mount(&log_, &nor.flash, &CONFIG), RECORDLOG_OK);
        CHECK_EQUAL(recordlog_affirm(&log_), RECORDLOG_OK);
        check_stays("a");

        /* The same, when the bit reads as if the record were torn. */
        start(&CONFIG);
        CHECK_EQUAL(append('a'), RECORDLOG_OK);
        CHECK_EQUAL(append('b'), RECORDLOG_OK);
        if ((nor.cells[log_.last + bit / 8] & (1u << bit % 8)) == 0) {
            nor.weak[log_.last + bit / 8] = (uint8_t)(1u << bit % 8);
            nor.cells[log_.last + bit / 8] |= (uint8_t)(1u << bit % 8);
            CHECK_EQUAL(recordlog_mount(&log_, &nor.flash, &CONFIG), RECORDLOG_OK);
            CHECK_EQUAL(append('c'), RECORDLOG_OK);
            check_stays("ac");
        }
    }
}

/* A record is sure when it was sealed and nothing was begun behind it. */
static void test_sure(void) {
    start(&CONFIG);
    CHECK(recordlog_is_sure(&log_)); /* there is no log yet */
    CHECK_EQUAL(append('a'), RECORDLOG_OK);
    CHECK(!recordlog_is_sure(&log_));
    CHECK_EQUAL(recordlog_seal(&log_), RECORDLOG_OK);
    CHECK(recordlog_is_sure(&log_));
    CHECK_EQUAL(remount(&CONFIG), RECORDLOG_OK);
    CHECK(recordlog_is_sure(&log_));

    /* With the next record something is begun, whether it is there, torn, or reads as blank. */
    for (int remounted = 0; remounted < 2; remounted++) {
        start(&CONFIG);
        CHECK_EQUAL(append('a'), RECORDLOG_OK);
        CHECK_EQUAL(recordlog_seal(&log_), RECORDLOG_OK);
        if (remounted) {
            CHECK_EQUAL(remount(&CONFIG), RECORDLOG_OK);
        }
        CHECK_EQUAL(append('b'), RECORDLOG_OK);
        const uint32_t begun = log_.last;
        const uint8_t fills[] = {0x12, 0xFF};
        for (size_t i = 0; i < sizeof fills; i++) {
            memset(nor.cells + begun, fills[i], CONFIG.payload_size + 4);
            CHECK_EQUAL(remount(&CONFIG), RECORDLOG_OK);
            CHECK_TEXT(contents(), "a");
            CHECK(!recordlog_is_sure(&log_));
        }
    }
    CHECK_EQUAL(append('a'), RECORDLOG_OK);
    CHECK_EQUAL(recordlog_seal(&log_), RECORDLOG_OK);
    CHECK(recordlog_is_sure(&log_));

    /* A compaction copies the record, and not what has made sure of it. */
    CHECK_EQUAL(recordlog_compact(&log_, is_not_b, NULL), RECORDLOG_OK);
    CHECK_EQUAL(remount(&CONFIG), RECORDLOG_OK);
    CHECK(!recordlog_is_sure(&log_));

    /* In a log without records one may have been begun. */
    start(&CONFIG);
    CHECK_EQUAL(recordlog_compact(&log_, NULL, NULL), RECORDLOG_OK);
    CHECK(!recordlog_is_sure(&log_));
}

/* A compaction that was cut off while its header was programmed: the half must not begin to count
 * after the other one was written to. */
static void test_weak_header(void) {
    for (uint32_t bit = 0; bit < 20 * 8; bit++) {
        start(&CONFIG);
        CHECK_EQUAL(append('a'), RECORDLOG_OK);
        CHECK_EQUAL(recordlog_compact(&log_, is_not_b, NULL), RECORDLOG_OK);
        const uint32_t at = log_.half + bit / 8;
        if ((nor.cells[at] & (1u << bit % 8)) != 0) {
            continue;
        }
        nor.weak[at] = (uint8_t)(1u << bit % 8);
        nor.cells[at] |= (uint8_t)(1u << bit % 8);
        CHECK_EQUAL(recordlog_mount(&log_, &nor.flash, &CONFIG), RECORDLOG_OK);
        CHECK_EQUAL(append('b'), RECORDLOG_OK);
        check_stays("ab");
    }
}

/* An erase that was cut off at its very end: a half that looks blank is not. */
static void test_weak_erased_half(void) {
    for (uint32_t bit = 0; bit < 64 * 8; bit++) {
        start(&CONFIG);
        CHECK_EQUAL(append('a'), RECORDLOG_OK);
        nor.weak[CONFIG.offset + 512 + RECORDLOG_HEADER_SIZE + bit / 8] = (uint8_t)(1u << bit % 8);
        CHECK_EQUAL(recordlog_compact(&log_, is_not_b, NULL), RECORDLOG_OK);
        CHECK_EQUAL(append('b'), RECORDLOG_OK);
        check_stays("ab");
    }
}

/* A bit that cannot be cleared costs a slot, not the record. */
static void test_stuck_bit(void) {
    start(&CONFIG);
    CHECK_EQUAL(append('a'), RECORDLOG_OK);
    nor.stuck_bit = log_.next + 2;
    CHECK_EQUAL(append('b'), RECORDLOG_OK);
    CHECK_TEXT(contents(), "ab");
    CHECK_EQUAL(remount(&CONFIG), RECORDLOG_OK);
    CHECK_EQUAL(append('d'), RECORDLOG_OK);
    CHECK_TEXT(contents(), "abd");
    nor.stuck = true;
    CHECK_EQUAL(append('e'), RECORDLOG_WRITE);
    nor.stuck = false;
    CHECK_EQUAL(append('f'), RECORDLOG_OK);
    CHECK_EQUAL(remount(&CONFIG), RECORDLOG_OK);
    CHECK_TEXT(contents(), "abdf");
}

static void test_refusals(void) {
    start(&CONFIG);
    struct recordlog log;
    const struct {
        uint32_t offset, size, payload_size;
    } bad[] = {{1000, 1024, 12},  {1024, 512, 12},      {1024, 1536, 12}, {1024, 0, 12},
               {1024, 1024, 13},  {1024, 1024, 4},      {1024, 1024, 0},  {1024, 1024, 252},
               {1024, 1024, ~0u}, {~0u - 511, 1024, 12}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        const struct recordlog_config config = {
            .offset = bad[i].offset, .size = bad[i].size, .payload_size = bad[i].payload_size};
        CHECK_EQUAL(recordlog_mount(&log, &nor.flash, &config), RECORDLOG_GEOMETRY);
        uint8_t payload[256] = {0};
        CHECK_EQUAL(recordlog_append(&log, payload), RECORDLOG_GEOMETRY);
    }
    /* An erased slot's cells, seen as a record, must not be one; neither must zeros. */
    for (uint32_t size = 12; size <= RECORDLOG_MAX_PAYLOAD; size = size * 2 + 4) {
        const uint8_t fills[] = {0x00, 0xFF};
        for (size_t i = 0; i < sizeof fills; i++) {
            struct recordlog_config config = CONFIG;
            config.payload_size = size;
            start(&config);
            uint8_t payload[RECORDLOG_MAX_PAYLOAD];
            memset(payload, 'a', sizeof payload);
            CHECK_EQUAL(recordlog_append(&log_, payload), RECORDLOG_OK);
            memset(nor.cells + log_.next, fills[i], size + 4);
            CHECK_EQUAL(recordlog_mount(&log_, &nor.flash, &config), RECORDLOG_OK);
            CHECK_TEXT(contents(), "a");
        }
    }
}

/* Whatever stands in the partition: mounting reads inside it and writes nothing, and then either
 * the log works or it says why not. */
static void test_garbage(void) {
    for (uint32_t seed = 0; seed < 2000; seed++) {
        start(&CONFIG);
        CHECK_EQUAL(append('a'), RECORDLOG_OK);
        CHECK_EQUAL(append('b'), RECORDLOG_OK);
        if (seed % 2 == 0) {
            CHECK_EQUAL(recordlog_compact(&log_, is_not_b, NULL), RECORDLOG_OK);
        }
        struct random random = random_from(seed);
        const uint32_t count = 1 + random_below(&random, 64);
        for (uint32_t i = 0; i < count; i++) {
            nor.cells[CONFIG.offset + random_below(&random, CONFIG.size)] =
                (uint8_t)random_next(&random);
        }
        CHECK_EQUAL(remount(&CONFIG), RECORDLOG_OK);
        CHECK_EQUAL(recordlog_compact(&log_, NULL, NULL), RECORDLOG_OK);
        CHECK_EQUAL(append('z'), RECORDLOG_OK);
        CHECK_EQUAL(remount(&CONFIG), RECORDLOG_OK);
        CHECK_TEXT(contents(), "z");
    }
}

int main(void) {
    test_append_and_compact();
    test_full();
    test_generation_runs_over();
    test_other_format();
    test_torn_slot();
    test_weak_blank_slot();
    test_weak_record();
    test_sure();
    test_weak_header();
    test_weak_erased_half();
    test_stuck_bit();
    test_refusals();
    test_garbage();
    return 0;
}
