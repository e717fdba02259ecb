#include "lib/journal.h"
#include "tests/check.h"
#include "tests/sim_nor.h"

enum { BLOCK = 512, OFFSET = 0, SIZE = 1024, STEPS = 40 };

struct bench {
    struct sim_nor nor;
    struct journal journal;
    struct journal_state before;
    struct journal_state after;
    volatile uint32_t step;
};

static bool same(const struct journal_state *a, const struct journal_state *b) {
    return a->phase == b->phase && a->starts == b->starts && a->source == b->source &&
           a->result == b->result && a->update_id == b->update_id &&
           a->security_counter == b->security_counter &&
           a->target_version.major == b->target_version.major &&
           a->target_version.minor == b->target_version.minor &&
           a->target_version.revision == b->target_version.revision &&
           a->target_version.build == b->target_version.build && a->target_size == b->target_size &&
           memcmp(a->target_digest, b->target_digest, sizeof a->target_digest) == 0;
}

static int mount(struct bench *bench) {
    return journal_mount(&bench->journal, &bench->nor.flash, OFFSET, SIZE);
}

static struct journal_state state_of(uint32_t step) {
    struct random random = random_from(step);
    struct journal_state state = {
        .phase = (uint8_t)random_below(&random, 4),
        .starts = (uint8_t)random_below(&random, 4),
        .source = (uint8_t)random_below(&random, 2),
        .result = (uint8_t)random_below(&random, 17),
        .update_id = random_next(&random),
        .security_counter = step,
        .target_version = {1, (uint8_t)step, (uint16_t)random_next(&random), random_next(&random)},
        .target_size = random_next(&random),
    };
    for (size_t i = 0; i < sizeof state.target_digest; i++) {
        state.target_digest[i] = (uint8_t)random_next(&random);
    }
    return state;
}

static bool run_script(struct bench *bench, uint32_t cut_at, enum sim_cut cut) {
    bench->nor.cut = cut;
    bench->nor.cut_at = cut_at == SIM_NEVER ? SIM_NEVER : bench->nor.operations + cut_at;
    if (setjmp(bench->nor.power_lost) != 0) {
        return false;
    }
    while (bench->step < STEPS) {
        bench->before = bench->journal.state;
        bench->after = state_of(bench->step);
        CHECK_EQUAL(journal_write(&bench->journal, &bench->after), RECORDLOG_OK);
        bench->before = bench->after;
        bench->step++;
    }
    return true;
}

static void recover(struct bench *bench) {
    for (int i = 0; i < 4; i++) {
        sim_nor_start(&bench->nor);
        const uint32_t operations = bench->nor.operations;
        CHECK_EQUAL(mount(bench), RECORDLOG_OK);
        CHECK_EQUAL(bench->nor.operations, operations);
        CHECK(same(&bench->journal.state, &bench->before) ||
              same(&bench->journal.state, &bench->after));
    }
}

/* After journal_affirm the state that was read is read for ever. */
static void affirm(struct bench *bench) {
    CHECK_EQUAL(journal_affirm(&bench->journal), RECORDLOG_OK);
    const struct journal_state seen = bench->journal.state;
    for (int i = 0; i < 4; i++) {
        sim_nor_start(&bench->nor);
        CHECK_EQUAL(mount(bench), RECORDLOG_OK);
        CHECK(same(&bench->journal.state, &seen));
    }
}

static void test_power_cuts(void) {
    static struct bench bench;
    uint32_t cases = 0;
    for (enum sim_cut cut = SIM_CUT_BEFORE; cut < SIM_CUTS; cut++) {
        bool finished = false;
        for (uint32_t cut_at = 0; !finished; cut_at++) {
            memset(&bench, 0, sizeof bench);
            sim_nor_init(&bench.nor, BLOCK, (uint64_t)cut_at * SIM_CUTS + cut);
            CHECK_EQUAL(mount(&bench), RECORDLOG_OK);
            CHECK(same(&bench.journal.state, &(struct journal_state){0}));
            finished = run_script(&bench, cut_at, cut);
            if (!finished) {
                recover(&bench);
                affirm(&bench);
                const uint32_t second = random_below(&bench.nor.random, 6);
                if (!run_script(&bench, second, random_below(&bench.nor.random, SIM_CUTS))) {
                    recover(&bench);
                    CHECK(run_script(&bench, SIM_NEVER, SIM_CUT_BEFORE));
                }
            }
            sim_nor_start(&bench.nor);
            CHECK_EQUAL(mount(&bench), RECORDLOG_OK);
            const struct journal_state last = state_of(STEPS - 1);
            CHECK(same(&bench.journal.state, &last));
            cases++;
        }
    }
    printf("%u power cuts\n", (unsigned)cases);
    CHECK(cases > STEPS * SIM_CUTS);
}

/* A write that fails leaves the old state, in RAM too. */
static void test_write_fails(void) {
    static struct bench bench;
    sim_nor_init(&bench.nor, BLOCK, 1);
    CHECK_EQUAL(mount(&bench), RECORDLOG_OK);
    const struct journal_state first = state_of(1);
    const struct journal_state second = state_of(2);
    bench.nor.stuck = true;
    CHECK_EQUAL(journal_write(&bench.journal, &first), RECORDLOG_WRITE);
    bench.nor.stuck = false;
    CHECK_EQUAL(journal_write(&bench.journal, &first), RECORDLOG_OK);
    bench.nor.stuck = true;
    CHECK_EQUAL(journal_write(&bench.journal, &second), RECORDLOG_WRITE);
    CHECK(same(&bench.journal.state, &first));
    bench.nor.stuck = false;
    CHECK_EQUAL(mount(&bench), RECORDLOG_OK);
    CHECK(same(&bench.journal.state, &first));
    CHECK_EQUAL(journal_write(&bench.journal, &second), RECORDLOG_OK);
    CHECK_EQUAL(mount(&bench), RECORDLOG_OK);
    CHECK(same(&bench.journal.state, &second));
}

/* Room is made before it is needed. A flash that does not take it leaves the old state. */
static void test_room(void) {
    static struct bench bench;
    sim_nor_init(&bench.nor, 2048, 1);
    CHECK_EQUAL(journal_mount(&bench.journal, &bench.nor.flash, OFFSET, 4096), RECORDLOG_OK);
    CHECK_EQUAL(journal_make_room(&bench.journal), RECORDLOG_OK);
    CHECK_EQUAL(bench.nor.operations, 0);
    struct journal_state state = state_of(1);
    do {
        CHECK_EQUAL(journal_write(&bench.journal, &state), RECORDLOG_OK);
    } while (recordlog_free(&bench.journal.log) >= JOURNAL_ROOM);
    bench.nor.stuck = true;
    CHECK_EQUAL(journal_make_room(&bench.journal), RECORDLOG_WRITE);
    CHECK(same(&bench.journal.state, &state));
    bench.nor.stuck = false;
    const uint32_t half = bench.journal.log.half;
    CHECK_EQUAL(journal_make_room(&bench.journal), RECORDLOG_OK);
    CHECK(recordlog_free(&bench.journal.log) >= JOURNAL_ROOM);
    CHECK(bench.journal.log.half != half);
    CHECK_EQUAL(journal_mount(&bench.journal, &bench.nor.flash, OFFSET, 4096), RECORDLOG_OK);
    CHECK(same(&bench.journal.state, &state));
}

/* A state that says IDLE and is sure is not written again. With anything behind it, it is, once. */
static void test_sure_when_idle(void) {
    static struct bench bench;
    sim_nor_init(&bench.nor, 2048, 1);
    CHECK_EQUAL(journal_mount(&bench.journal, &bench.nor.flash, OFFSET, 4096), RECORDLOG_OK);
    CHECK_EQUAL(journal_affirm(&bench.journal), RECORDLOG_OK);
    CHECK_EQUAL(bench.nor.operations, 0);
    struct journal_state state = state_of(1);
    for (int later = 0; later < 2; later++) {
        state.phase = JOURNAL_IDLE;
        CHECK_EQUAL(journal_write(&bench.journal, &state), RECORDLOG_OK);
        const struct journal_state idle = state;
        CHECK_EQUAL(journal_mount(&bench.journal, &bench.nor.flash, OFFSET, 4096), RECORDLOG_OK);
        uint32_t operations = bench.nor.operations;
        CHECK_EQUAL(journal_affirm(&bench.journal), RECORDLOG_OK);
        CHECK_EQUAL(bench.nor.operations, operations);

        state.phase = JOURNAL_REWRITING;
        CHECK_EQUAL(journal_write(&bench.journal, &state), RECORDLOG_OK);
        const uint32_t begun =
            bench.journal.log.last; /* it reads as blank once, and may later not */
        memset(bench.nor.cells + begun, later == 0 ? 0xFF : 0x12, 64);
        CHECK_EQUAL(journal_mount(&bench.journal, &bench.nor.flash, OFFSET, 4096), RECORDLOG_OK);
        CHECK(same(&bench.journal.state, &idle));
        CHECK_EQUAL(journal_affirm(&bench.journal), RECORDLOG_OK);
        CHECK(bench.journal.log.last > begun);
        CHECK(same(&bench.journal.state, &idle));
        CHECK_EQUAL(journal_mount(&bench.journal, &bench.nor.flash, OFFSET, 4096), RECORDLOG_OK);
        operations = bench.nor.operations;
        CHECK_EQUAL(journal_affirm(&bench.journal), RECORDLOG_OK);
        CHECK_EQUAL(bench.nor.operations, operations);
    }
}

/* A full journal that takes nothing any more does for what is there. */
static void test_affirm_in_a_worn_journal(void) {
    static struct bench bench;
    sim_nor_init(&bench.nor, BLOCK, 1);
    CHECK_EQUAL(mount(&bench), RECORDLOG_OK);
    struct journal_state state = state_of(1);
    state.phase = JOURNAL_IDLE;
    do {
        CHECK_EQUAL(journal_write(&bench.journal, &state), RECORDLOG_OK);
    } while (recordlog_free(&bench.journal.log) > 0 || recordlog_is_sure(&bench.journal.log));
    bench.nor.stuck = true;
    CHECK_EQUAL(mount(&bench), RECORDLOG_OK);
    CHECK_EQUAL(journal_affirm(&bench.journal), RECORDLOG_OK);
    CHECK(same(&bench.journal.state, &state));
}

int main(void) {
    test_sure_when_idle();
    test_affirm_in_a_worn_journal();
    test_power_cuts();
    test_write_fails();
    test_room();
    return 0;
}
