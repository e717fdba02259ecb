/* Runs a fuzz target without libFuzzer: every seed file as it is, then mutations of them.
 *
 *     fuzz_x ITERATIONS SEED FILE...
 *
 * The same arguments do the same again. With clang the targets build without this file, with
 * -fsanitize=fuzzer, and FILEs are the corpus. */
#include "tests/check.h"
#include "tests/random.h"

enum { MAX_SEEDS = 64, MAX_INPUT = 4096 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    size_t size;
    uint8_t bytes[MAX_INPUT];
};

static struct input seeds[MAX_SEEDS];
static uint32_t seed_count;

static void load(const char *path) {
    CHECK(seed_count < MAX_SEEDS);
    struct input *input = &seeds[seed_count++];
    FILE *file = fopen(path, "rb");
    CHECK(file != NULL);
    input->size = fread(input->bytes, 1, sizeof input->bytes, file);
    fclose(file);
}

/* A copy of just this size: the sanitizer sees every step beyond it. */
static void run(const struct input *input) {
    uint8_t *copy = malloc(input->size + (input->size == 0));
    CHECK(copy != NULL);
    memcpy(copy, input->bytes, input->size);
    LLVMFuzzerTestOneInput(copy, input->size);
    free(copy);
}

static void insert(struct input *input, struct random *random) {
    const size_t at = random_below(random, (uint32_t)input->size + 1);
    size_t count = 1 + random_below(random, 8);
    if (count > MAX_INPUT - input->size) {
        count = MAX_INPUT - input->size;
    }
    memmove(input->bytes + at + count, input->bytes + at, input->size - at);
    for (size_t i = 0; i < count; i++) {
        input->bytes[at + i] = (uint8_t)random_next(random);
    }
    input->size += count;
}

static void remove_some(struct input *input, struct random *random) {
    const size_t at = random_below(random, (uint32_t)input->size);
    size_t count = 1 + random_below(random, 16);
    if (count > input->size - at) {
        count = input->size - at;
    }
    memmove(input->bytes + at, input->bytes + at + count, input->size - at - count);
    input->size -= count;
}

/* The end of another seed instead of this one's. */
static void splice(struct input *input, struct random *random) {
    const struct input *other = &seeds[random_below(random, seed_count)];
    const size_t keep = random_below(random, (uint32_t)input->size + 1);
    const size_t from = random_below(random, (uint32_t)other->size + 1);
    size_t count = other->size - from;
    if (count > MAX_INPUT - keep) {
        count = MAX_INPUT - keep;
    }
    memcpy(input->bytes + keep, other->bytes + from, count);
    input->size = keep + count;
}

static void mutate(struct input *input, struct random *random) {
    static const uint8_t interesting[] = {0x00, 0x01, 0x7F, 0x80, 0xFE, 0xFF, 0xC0, 0xDB, 0x18};
    if (input->size == 0) {
        insert(input, random);
        return;
    }
    uint8_t *byte = &input->bytes[random_below(random, (uint32_t)input->size)];
    switch (random_below(random, 7)) {
    case 0:
        *byte ^= (uint8_t)(1u << random_below(random, 8));
        break;
    case 1:
        *byte = (uint8_t)random_next(random);
        break;
    case 2:
        *byte = interesting[random_below(random, sizeof interesting)];
        break;
    case 3:
        *byte = (uint8_t)(*byte + random_below(random, 9) - 4);
        break;
    case 4:
        insert(input, random);
        break;
    case 5:
        remove_some(input, random);
        break;
    default:
        splice(input, random);
        break;
    }
}

int main(int argc, char **argv) {
    static struct input input;
    CHECK(argc > 3);
    const unsigned long iterations = strtoul(argv[1], NULL, 10);
    struct random random = random_from(strtoul(argv[2], NULL, 10));
    for (int i = 3; i < argc; i++) {
        load(argv[i]);
        run(&seeds[seed_count - 1]);
    }
    for (unsigned long i = 0; i < iterations; i++) {
        input = seeds[random_below(&random, seed_count)];
        for (uint32_t count = 1 + random_below(&random, 6); count > 0; count--) {
            mutate(&input, &random);
        }
        run(&input);
    }
    printf("%lu inputs\n", iterations + seed_count);
    return 0;
}
