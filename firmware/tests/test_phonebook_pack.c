#include <stdio.h>

#include "lib/phonebook_pack.h"
#include "tests/check.h"
#include "tests/sim_nor.h"

/* Small enough that giving back compacts; half of the 31 slots of 64 bytes hold the capacity. */
enum { BLOCK = 2048, OFFSET = 2048, SIZE = 4096, CAPACITY = 12, PACKED_MAX = 1024 };

struct bench {
    struct sim_nor nor;
    struct phonebook book;
    uint32_t index[CAPACITY];
};

static enum phonebook_format format;
static uint32_t progressed;

static void progress(void *ctx) {
    (*(uint32_t *)ctx)++;
}

static int mount(struct bench *bench) {
    return phonebook_mount(&bench->book, &bench->nor.flash, OFFSET, SIZE, format, bench->index,
                           CAPACITY);
}

static void begin(struct bench *bench, uint64_t seed) {
    memset(bench, 0, sizeof *bench);
    sim_nor_init(&bench->nor, BLOCK, seed);
    CHECK_EQUAL(mount(bench), PHONEBOOK_OK);
}

static void add(struct bench *bench, const char *name, const char *number) {
    CHECK(phonebook_add(&bench->book, name, number) > 0);
}

static bool has(const struct bench *bench, uint16_t id, const char *name, const char *number) {
    struct phonebook_entry entry;
    return phonebook_find(&bench->book, id, &entry) && strcmp(entry.name, name) == 0 &&
           strcmp(entry.number, number) == 0;
}

static uint8_t bytes[PACKED_MAX];

static struct phonebook_packed packed_of(const struct bench *bench) {
    struct phonebook_packed packed;
    const size_t length = phonebook_pack(&bench->book, bytes, sizeof bytes, progress, &progressed);
    CHECK(length > 0);
    CHECK(phonebook_unpack(&packed, bytes, length));
    CHECK_EQUAL(packed.count, bench->book.count);
    return packed;
}

static void test_packing(void) {
    static struct bench bench;
    static const uint8_t expected[] = "\x82\x01\x82\x83\x01\x65"
                                      "Alice"
                                      "\x63"
                                      "112"
                                      "\x83\x03\x65"
                                      "Jos\xC3\xA9"
                                      "\x62*#";
    begin(&bench, 1);
    CHECK_EQUAL(phonebook_pack(&bench.book, bytes, sizeof bytes, NULL, NULL), 3);
    CHECK(memcmp(bytes, "\x82\x01\x80", 3) == 0);
    add(&bench, "Alice", "112");
    add(&bench, "Bob", "7");
    add(&bench, "Jos\xC3\xA9", "*#");
    CHECK_EQUAL(phonebook_delete(&bench.book, 2), PHONEBOOK_OK);
    progressed = 0;
    (void)packed_of(&bench);
    CHECK_EQUAL(progressed, 2);
    CHECK(memcmp(bytes, expected, sizeof expected - 1) == 0);
    for (size_t size = 0; size < sizeof expected - 1; size++) {
        CHECK_EQUAL(phonebook_pack(&bench.book, bytes, size, NULL, NULL), 0);
    }
}

static void test_giving_back(void) {
    static struct bench bench;
    uint32_t stored;
    begin(&bench, 1);
    add(&bench, "Alice", "112");
    add(&bench, "Bob", "7");
    add(&bench, "Bob", "7");
    add(&bench, "Carol", "8");
    const struct phonebook_packed packed = packed_of(&bench);

    CHECK_EQUAL(phonebook_restore(&bench.book, &packed, false, &stored, NULL, NULL), PHONEBOOK_OK);
    CHECK_EQUAL(stored, 0);

    /* To an empty phonebook, in the other format: with their numbers. */
    format = format == PHONEBOOK_NAME_FIRST ? PHONEBOOK_NUMBER_FIRST : PHONEBOOK_NAME_FIRST;
    begin(&bench, 2);
    CHECK_EQUAL(phonebook_restore(&bench.book, &packed, false, &stored, NULL, NULL), PHONEBOOK_OK);
    CHECK_EQUAL(stored, 4);
    CHECK(has(&bench, 1, "Alice", "112") && has(&bench, 2, "Bob", "7"));
    CHECK(has(&bench, 3, "Bob", "7") && has(&bench, 4, "Carol", "8"));

    /* What is there stays, what is missing comes, an ID that is taken is another one. */
    begin(&bench, 3);
    add(&bench, "Dora", "9");
    add(&bench, "Bob", "7");
    CHECK_EQUAL(phonebook_restore(&bench.book, &packed, false, &stored, NULL, NULL), PHONEBOOK_OK);
    CHECK_EQUAL(stored, 3);
    CHECK_EQUAL(bench.book.count, 5);
    CHECK(has(&bench, 1, "Dora", "9") && has(&bench, 2, "Bob", "7") &&
          has(&bench, 3, "Alice", "112"));
    CHECK(has(&bench, 4, "Bob", "7") && has(&bench, 5, "Carol", "8"));
    CHECK_EQUAL(phonebook_restore(&bench.book, &packed, false, &stored, NULL, NULL), PHONEBOOK_OK);
    CHECK_EQUAL(stored, 0);

    /* No room for all of it, and a chip that takes nothing. */
    begin(&bench, 4);
    for (int i = 0; i < CAPACITY - 2; i++) {
        add(&bench, "x", "1");
    }
    CHECK_EQUAL(phonebook_restore(&bench.book, &packed, false, &stored, NULL, NULL),
                PHONEBOOK_NO_ROOM);
    CHECK_EQUAL(stored, 2);
    begin(&bench, 5);
    bench.nor.stuck = true;
    CHECK_EQUAL(phonebook_restore(&bench.book, &packed, false, &stored, NULL, NULL),
                RECORDLOG_WRITE);
}

/* False: power was lost. */
static bool give_back(struct bench *bench, const struct phonebook_packed *packed) {
    uint32_t stored;
    if (setjmp(bench->nor.power_lost) != 0) {
        return false;
    }
    CHECK_EQUAL(phonebook_restore(&bench->book, packed, false, &stored, NULL, NULL), PHONEBOOK_OK);
    return true;
}

/* Power is cut in every operation in every way: done again, all is there, once. */
static void test_power_cuts(void) {
    static struct bench bench;
    uint32_t stored;
    uint32_t cases = 0;
    begin(&bench, 1);
    add(&bench, "Alice", "112");
    add(&bench, "Bob", "7");
    add(&bench, "Bob", "7");
    const struct phonebook_packed packed = packed_of(&bench);
    for (enum sim_cut cut = SIM_CUT_BEFORE; cut < SIM_CUTS; cut++) {
        bool finished = false;
        for (uint32_t cut_at = 0; !finished; cut_at++) {
            begin(&bench, (uint64_t)cut_at * SIM_CUTS + cut);
            /* So many deleted ones that giving back must compact. */
            for (int i = 0; i < 15; i++) {
                add(&bench, "old", "1");
                CHECK_EQUAL(phonebook_delete(&bench.book, 1), PHONEBOOK_OK);
            }
            add(&bench, "Bob", "7");
            bench.nor.cut = cut;
            bench.nor.cut_at = bench.nor.operations + cut_at;
            finished = give_back(&bench, &packed);
            bench.nor.cut_at = SIM_NEVER;
            sim_nor_start(&bench.nor);
            CHECK_EQUAL(mount(&bench), PHONEBOOK_OK);
            CHECK_EQUAL(phonebook_restore(&bench.book, &packed, false, &stored, NULL, NULL), 0);
            sim_nor_start(&bench.nor);
            CHECK_EQUAL(mount(&bench), PHONEBOOK_OK);
            CHECK_EQUAL(bench.book.count, 3);
            CHECK_EQUAL(phonebook_restore(&bench.book, &packed, false, &stored, NULL, NULL), 0);
            CHECK_EQUAL(stored, 0);
            cases++;
        }
    }
    printf("%u power cuts\n", (unsigned)cases);
    CHECK(cases > 5 * SIM_CUTS); /* of the compaction, too */
}

/* False: power was lost, as it is to be. */
static bool erase(struct bench *bench) {
    if (setjmp(bench->nor.power_lost) != 0) {
        return false;
    }
    (void)bench->nor.flash.erase(bench->nor.flash.ctx, OFFSET);
    return true;
}

static void add_people(struct bench *bench) {
    add(bench, "Alice", "112");
    add(bench, "Bob", "7");
    add(bench, "Carol", "8");
}

/* Power is lost in an erase of what is there: whatever is left of it, all is there afterwards, and
 * at every later start. */
static void test_doubtful(void) {
    static struct bench bench;
    uint32_t stored;
    uint32_t left = 0;
    enum { CASES = 400 };
    begin(&bench, 1);
    add_people(&bench);
    const struct phonebook_packed packed = packed_of(&bench);
    for (uint64_t seed = 1; seed <= CASES; seed++) {
        begin(&bench, seed);
        add_people(&bench);
        bench.nor.cut = (enum sim_cut)(seed % SIM_CUTS);
        bench.nor.cut_at = bench.nor.operations;
        CHECK(!erase(&bench));
        bench.nor.cut_at = SIM_NEVER;
        sim_nor_start(&bench.nor);
        CHECK_EQUAL(mount(&bench), PHONEBOOK_OK);
        left += bench.book.count;
        CHECK_EQUAL(phonebook_restore(&bench.book, &packed, true, &stored, NULL, NULL), 0);
        for (int start = 0; start < 4; start++) {
            sim_nor_start(&bench.nor);
            CHECK_EQUAL(mount(&bench), PHONEBOOK_OK);
            CHECK_EQUAL(phonebook_restore(&bench.book, &packed, false, &stored, NULL, NULL), 0);
            CHECK_EQUAL(stored, 0);
            CHECK_EQUAL(bench.book.count, 3);
        }
    }
    CHECK(left > 0 && left < 3 * CASES);
}

static void test_refusals(void) {
    static const struct {
        const char *data;
        size_t length;
        bool good;
    } cases[] = {
        {"\x82\x01\x80", 3, true},
        {"\x82\x01\x81\x83\x01\x61"
         "a\x61"
         "1",
         9, true},
        {"", 0, false},
        {"\x80", 1, false},
        {"\x82\x02\x80", 3, false},                  /* another version */
        {"\x82\x01\x80\x00", 4, false},              /* more behind it */
        {"\x82\x01\x81", 3, false},                  /* too short */
        {"\x82\x01\x9B\0\0\0\0\0\0\0\1", 11, false}, /* more entries than bytes */
        {"\x82\x01\x9A\xFF\xFF\xFF\xFF\x00", 8, false},
        {"\x82\x01\x81\x83\x00\x61"
         "a\x61"
         "1",
         9, false}, /* ID 0 */
        {"\x82\x01\x81\x83\x01\x60\x61"
         "1",
         8, false}, /* no name */
        {"\x82\x01\x81\x83\x01\x61"
         "a\x61"
         "x",
         9, false}, /* no number */
        {"\x82\x01\x81\x83\x01\x61\x07\x61"
         "1",
         9, false}, /* a control character */
        {"\x82\x01\x81\x83\x01\x61\x00\x61"
         "1",
         9, false},
        {"\x82\x01\x81\x83\x1A\x00\x01\x00\x00\x61"
         "a\x61"
         "1",
         13, false}, /* an ID beyond 16 bits */
        {"\x82\x01\x81\x84\x01\x61"
         "a\x61"
         "1\x00",
         10, false}, /* a part too many */
        {"\x82\x01\x81\x83\x01\x41"
         "a\x61"
         "1",
         9, false}, /* bytes for a name */
    };
    struct phonebook_packed packed;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK_EQUAL(phonebook_unpack(&packed, (const uint8_t *)cases[i].data, cases[i].length),
                    cases[i].good);
    }
}

int main(void) {
    for (int i = 0; i < 2; i++) {
        format = i == 0 ? PHONEBOOK_NAME_FIRST : PHONEBOOK_NUMBER_FIRST;
        test_packing();
        test_giving_back();
        test_power_cuts();
        test_doubtful();
        test_refusals();
    }
    return 0;
}
