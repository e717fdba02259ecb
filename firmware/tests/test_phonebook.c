#include <stdio.h>

#include "lib/phonebook.h"
#include "tests/check.h"
#include "tests/sim_nor.h"

/* Small enough that a few dozen operations compact several times. */
enum { BLOCK = 512, OFFSET = 1024, SIZE = 2048, CAPACITY = 6, STEPS = 60 };

/* What the phonebook must hold. */
struct model {
    uint32_t count;
    struct phonebook_entry entries[CAPACITY];
};

struct bench {
    struct sim_nor nor;
    struct phonebook book;
    uint32_t index[CAPACITY];
    struct model before; /* the step that runs */
    struct model after;
    volatile uint32_t step;
};

/* The format that everything below is played with. */
static enum phonebook_format format;

static int mount_as(struct bench *bench, enum phonebook_format as) {
    return phonebook_mount(&bench->book, &bench->nor.flash, OFFSET, SIZE, as, bench->index,
                           CAPACITY);
}

static int mount(struct bench *bench) {
    return mount_as(bench, format);
}

static bool matches(const struct bench *bench, const struct model *model) {
    struct phonebook_entry entry;
    if (bench->book.count != model->count) {
        return false;
    }
    for (uint32_t i = 0; i < model->count; i++) {
        const struct phonebook_entry *expected = &model->entries[i];
        if (!phonebook_get(&bench->book, i, &entry) || entry.id != expected->id ||
            strcmp(entry.name, expected->name) != 0 ||
            strcmp(entry.number, expected->number) != 0 ||
            !phonebook_find(&bench->book, expected->id, &entry) || entry.id != expected->id) {
            return false;
        }
    }
    return !phonebook_get(&bench->book, model->count, &entry);
}

static uint16_t model_add(struct model *model, const char *name, const char *number) {
    uint16_t id = 1;
    for (uint32_t i = 0; i < model->count; i++) {
        if (model->entries[i].id == id) {
            id++;
            i = UINT32_MAX; /* from the start again */
        }
    }
    struct phonebook_entry *entry = &model->entries[model->count++];
    entry->id = id;
    snprintf(entry->name, sizeof entry->name, "%s", name);
    snprintf(entry->number, sizeof entry->number, "%s", number);
    return id;
}

static void model_delete(struct model *model, uint32_t position) {
    model->count--;
    memmove(&model->entries[position], &model->entries[position + 1],
            (model->count - position) * sizeof model->entries[0]);
}

/* One step of the script: add or delete, as the step number says, with what there is now. */
static void run_step(struct bench *bench, uint32_t step) {
    struct random random = random_from(step);
    const struct model now = bench->before;
    bench->after = now;
    const bool add = now.count == 0 || (now.count < CAPACITY && random_below(&random, 5) < 3);
    if (add) {
        char name[PHONEBOOK_MAX_NAME + 1];
        char number[PHONEBOOK_MAX_NUMBER + 1];
        snprintf(name, sizeof name, "Jos\xC3\xA9 %u", (unsigned)step);
        snprintf(number, sizeof number, "+%u*#", (unsigned)random_next(&random));
        const uint16_t id = model_add(&bench->after, name, number);
        CHECK_EQUAL(phonebook_add(&bench->book, name, number), id);
    } else {
        const uint32_t position = random_below(&random, now.count);
        model_delete(&bench->after, position);
        CHECK_EQUAL(phonebook_delete(&bench->book, now.entries[position].id), PHONEBOOK_OK);
    }
    CHECK(matches(bench, &bench->after));
    bench->before = bench->after;
}

/* Runs the script from bench->step; false: power was cut, bench->before and after say where. */
static bool run_script(struct bench *bench, uint32_t cut_at, enum sim_cut cut) {
    bench->nor.cut = cut;
    bench->nor.cut_at = cut_at == SIM_NEVER ? SIM_NEVER : bench->nor.operations + cut_at;
    if (setjmp(bench->nor.power_lost) != 0) {
        return false;
    }
    /* Until this is done, either state may be read at the next start. */
    CHECK_EQUAL(recordlog_affirm(&bench->book.log), RECORDLOG_OK);
    bench->before = matches(bench, &bench->after) ? bench->after : bench->before;
    while (bench->step < STEPS) {
        run_step(bench, bench->step);
        bench->step++;
    }
    return true;
}

static void begin(struct bench *bench, uint64_t seed) {
    memset(bench, 0, sizeof *bench);
    sim_nor_init(&bench->nor, BLOCK, seed);
    CHECK_EQUAL(mount(bench), PHONEBOOK_OK);
    CHECK_EQUAL(bench->book.count, 0);
}

/* Power comes back; every start must find the old state or the new one. */
static void recover(struct bench *bench) {
    for (int i = 0; i < 4; i++) {
        sim_nor_start(&bench->nor);
        const uint32_t operations = bench->nor.operations;
        CHECK_EQUAL(mount(bench), PHONEBOOK_OK);
        CHECK_EQUAL(bench->nor.operations, operations); /* mounting writes nothing */
        CHECK(matches(bench, &bench->before) || matches(bench, &bench->after));
    }
}

static void check_settled(struct bench *bench) {
    bench->after = bench->before;
    for (int i = 0; i < 4; i++) {
        sim_nor_start(&bench->nor);
        CHECK_EQUAL(mount(bench), PHONEBOOK_OK);
        CHECK(matches(bench, &bench->before));
    }
}

/* Power is cut in every operation in every way, and once more after that start. */
static void test_power_cuts(void) {
    static struct bench bench;
    uint32_t cases = 0;
    for (enum sim_cut cut = SIM_CUT_BEFORE; cut < SIM_CUTS; cut++) {
        bool finished = false;
        for (uint32_t cut_at = 0; !finished; cut_at++) {
            begin(&bench, (uint64_t)cut_at * SIM_CUTS + cut);
            finished = run_script(&bench, cut_at, cut);
            if (!finished) {
                recover(&bench);
                const uint32_t second = random_below(&bench.nor.random, 12);
                if (!run_script(&bench, second, random_below(&bench.nor.random, SIM_CUTS))) {
                    recover(&bench);
                    CHECK(run_script(&bench, SIM_NEVER, SIM_CUT_BEFORE));
                }
            }
            check_settled(&bench);
            cases++;
        }
    }
    printf("%u power cuts\n", (unsigned)cases);
    CHECK(cases > 60 * SIM_CUTS); /* at least every append was cut in every way */
}

static void test_limits(void) {
    static struct bench bench;
    struct phonebook_entry entry;
    begin(&bench, 1);
    const uint32_t operations = bench.nor.operations;
    CHECK_EQUAL(phonebook_add(&bench.book, "", "1"), PHONEBOOK_BAD_NAME);
    CHECK_EQUAL(phonebook_add(&bench.book, "a\nb", "1"), PHONEBOOK_BAD_NAME);
    CHECK_EQUAL(phonebook_add(&bench.book, "a\x9B", "1"), PHONEBOOK_BAD_NAME);
    CHECK_EQUAL(phonebook_add(&bench.book, "12345678901234567890123456789012", "1"),
                PHONEBOOK_BAD_NAME);
    CHECK_EQUAL(phonebook_add(&bench.book, "a", ""), PHONEBOOK_BAD_NUMBER);
    CHECK_EQUAL(phonebook_add(&bench.book, "a", "12 3"), PHONEBOOK_BAD_NUMBER);
    CHECK_EQUAL(phonebook_add(&bench.book, "a", "123456789012345678901234"), PHONEBOOK_BAD_NUMBER);
    CHECK_EQUAL(phonebook_delete(&bench.book, 1), PHONEBOOK_NO_ENTRY);
    CHECK_EQUAL(bench.nor.operations, operations);

    const char *longest_name = "1234567890123456789012345678901";
    const char *longest_number = "12345678901234567890+*#";
    for (int i = 1; i <= CAPACITY; i++) { /* the same entry may be there more than once */
        CHECK_EQUAL(phonebook_add(&bench.book, longest_name, longest_number), i);
    }
    CHECK_EQUAL(phonebook_add(&bench.book, "one more", "1"), PHONEBOOK_NO_ROOM);
    sim_nor_start(&bench.nor);
    CHECK_EQUAL(mount(&bench), PHONEBOOK_OK);
    CHECK(phonebook_get(&bench.book, CAPACITY - 1, &entry));
    CHECK_TEXT(entry.name, longest_name);
    CHECK_TEXT(entry.number, longest_number);
    CHECK(!phonebook_find(&bench.book, CAPACITY + 1, &entry));
}

/* A phonebook with more entries than this software can hold is left alone. */
static void test_too_many(void) {
    static struct bench bench;
    begin(&bench, 1);
    for (int i = 1; i <= CAPACITY; i++) {
        CHECK_EQUAL(phonebook_add(&bench.book, "a", "1"), i);
    }
    const uint32_t operations = bench.nor.operations;
    CHECK_EQUAL(
        phonebook_mount(&bench.book, &bench.nor.flash, OFFSET, SIZE, format, bench.index, 2),
        PHONEBOOK_NO_ROOM);
    CHECK_EQUAL(phonebook_delete(&bench.book, 1), PHONEBOOK_NO_ROOM);
    CHECK_EQUAL(bench.nor.operations, operations);
    CHECK_EQUAL(mount(&bench), PHONEBOOK_OK);
    CHECK_EQUAL(bench.book.count, CAPACITY);
}

/* A block is erased only when a half is full: 15 slots, one of them carried over. */
static void test_wear(void) {
    static struct bench bench;
    begin(&bench, 1);
    for (int i = 0; i < 500; i++) {
        CHECK_EQUAL(phonebook_add(&bench.book, "a", "1"), 1);
        CHECK_EQUAL(phonebook_delete(&bench.book, 1), PHONEBOOK_OK);
    }
    const uint32_t compactions = 1000 / 14 + 1;
    CHECK(bench.nor.operations <= 1000 + compactions * (2 /* erase */ + 1 /* carry */ + 1));
}

/* What is kept in the other format is left alone, and can be read by whoever knows it. */
static void test_other_format(void) {
    static struct bench bench;
    struct phonebook_entry entry;
    const enum phonebook_format other =
        format == PHONEBOOK_NAME_FIRST ? PHONEBOOK_NUMBER_FIRST : PHONEBOOK_NAME_FIRST;
    begin(&bench, 1);
    CHECK_EQUAL(phonebook_add(&bench.book, "Alice", "112"), 1);
    const uint32_t operations = bench.nor.operations;
    sim_nor_start(&bench.nor);
    CHECK_EQUAL(mount_as(&bench, other), RECORDLOG_OTHER_FORMAT);
    CHECK_EQUAL(bench.book.count, 0);
    CHECK_EQUAL(phonebook_add(&bench.book, "Bob", "7"), RECORDLOG_OTHER_FORMAT);
    CHECK_EQUAL(phonebook_delete(&bench.book, 1), RECORDLOG_OTHER_FORMAT);
    CHECK_EQUAL(bench.nor.operations, operations);
    CHECK_EQUAL(mount(&bench), PHONEBOOK_OK);
    CHECK(phonebook_get(&bench.book, 0, &entry));
    CHECK_TEXT(entry.name, "Alice");
    CHECK_TEXT(entry.number, "112");
}

/* What was deleted before a compaction does not come back when the half that counts is erased. */
static void test_dropping_what_is_older(void) {
    static struct bench bench;
    for (int dropped = 0; dropped < 2; dropped++) {
        begin(&bench, 1);
        CHECK_EQUAL(phonebook_add(&bench.book, "deleted", "1"), 1);
        CHECK_EQUAL(phonebook_add(&bench.book, "Alice", "112"), 2);
        CHECK_EQUAL(recordlog_drop_older(&bench.book.log), RECORDLOG_OK);
        CHECK_EQUAL(phonebook_rebuild(&bench.book), PHONEBOOK_OK);
        CHECK_EQUAL(phonebook_delete(&bench.book, 1), PHONEBOOK_OK);
        if (dropped) {
            CHECK_EQUAL(recordlog_drop_older(&bench.book.log), RECORDLOG_OK);
        }
        CHECK_EQUAL(bench.nor.flash.erase(bench.nor.flash.ctx, bench.book.log.half), 0);
        sim_nor_start(&bench.nor);
        CHECK_EQUAL(mount(&bench), PHONEBOOK_OK);
        CHECK_EQUAL(bench.book.count, dropped ? 0 : 2);
        CHECK_EQUAL(recordlog_drop_older(&bench.book.log), RECORDLOG_OK);
        CHECK_EQUAL(phonebook_add(&bench.book, "Bob", "7"), dropped ? 1 : 3);
    }
    begin(&bench, 1);
    CHECK_EQUAL(recordlog_drop_older(&bench.book.log), RECORDLOG_OK);
    CHECK_EQUAL(phonebook_add(&bench.book, "Alice", "112"), 1);
    CHECK_EQUAL(phonebook_rebuild(&bench.book), PHONEBOOK_OK);
    bench.nor.stuck = true;
    CHECK_EQUAL(recordlog_drop_older(&bench.book.log), RECORDLOG_WRITE);
}

int main(void) {
    for (format = PHONEBOOK_NAME_FIRST; format <= PHONEBOOK_NUMBER_FIRST; format++) {
        test_power_cuts();
        test_limits();
        test_too_many();
        test_other_format();
        test_wear();
        test_dropping_what_is_older();
    }
    return 0;
}
