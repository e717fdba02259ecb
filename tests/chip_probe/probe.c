/* Does what a script in the flash says, and keeps in RAM what it read. Tests of chips drive their
 * registers with it: each access is one of real code on the real core. */
#include <stdint.h>

enum { WRITE, READ, WAIT, SLEEP, COPY, CALL, END };
enum { TRIES = 1000000, GAVE_UP = 0x77777777 };

struct step {
    uint32_t kind, size, address, value, mask;
};

struct script {
    uint32_t runs_from_ram;
    struct step steps[];
};

struct results {
    uint32_t count, values[511];
    uint32_t interrupts[128]; /* by exception */
    uint32_t code[256];
    uint32_t static_base; /* R9 of functions that are called */
};

static const struct script *const SCRIPT_AT = (const struct script *)SCRIPT;
static struct results *const RESULTS_AT = (struct results *)RESULTS;

/* In a section of its own, so that it can be copied to RAM: it calls nothing and does not end. */
__attribute__((section("movable"), noinline, used)) static void run(const struct step *s,
                                                                    struct results *r) {
    for (; s->kind < END; s++) { /* erased flash ends it, too */
        volatile uint32_t *word = (volatile uint32_t *)s->address;
        volatile uint16_t *half = (volatile uint16_t *)s->address;
        volatile uint8_t *byte = (volatile uint8_t *)s->address;
        uint32_t value = 0, tries = 0;
        if (s->kind == WRITE && s->size == 8) { /* STRD is two stores of words */
            word[0] = s->value;
            word[1] = s->mask;
        } else if (s->kind == WRITE && s->size == 4) {
            *word = s->value;
        } else if (s->kind == WRITE && s->size == 2) {
            *half = (uint16_t)s->value;
        } else if (s->kind == WRITE) {
            *byte = (uint8_t)s->value;
        } else if (s->kind == SLEEP) {
            __asm__ volatile("wfi");
        } else if (s->kind == COPY) {
            for (uint32_t i = 0; i < s->size; i++) {
                byte[i] = ((const volatile uint8_t *)s->value)[i];
            }
        } else if (s->kind == CALL) {
            register uint32_t r0 __asm__("r0") = s->value;
            register uint32_t r1 __asm__("r1") = s->mask;
            register uint32_t r2 __asm__("r2") = s->size;
            __asm__ volatile("mov r9, %[base]\nblx %[function]"
                             : "+r"(r0), "+r"(r1), "+r"(r2)
                             : [base] "r"(r->static_base), [function] "r"(s->address)
                             : "r3", "r9", "r12", "lr", "memory", "cc");
            r->values[r->count++] = r0;
        } else {
            do {
                value = s->size == 4 ? *word : s->size == 2 ? *half : *byte;
            } while (s->kind == WAIT && (value & s->mask) != s->value && ++tries < TRIES);
            r->values[r->count] = tries < TRIES ? value : GAVE_UP;
            r->count += s->kind == READ || tries == TRIES;
        }
    }
    for (;;) {
        __asm__ volatile("cpsid i\nwfi");
    }
}

/* An interrupt is counted, and switched off. */
static void handle(void) {
    uint32_t exception;
    __asm__ volatile("mrs %0, ipsr" : "=r"(exception));
    RESULTS_AT->interrupts[exception]++;
    if (exception >= 16) {
        ((volatile uint32_t *)0xe000e180)[(exception - 16) / 32] = 1u << (exception - 16) % 32;
    }
}

extern uint32_t run_begin[], run_end[];

void start(void) {
    struct results *r = RESULTS_AT;
    r->count = 0;
    for (unsigned i = 0; i < 128; i++) {
        r->interrupts[i] = 0;
    }
    if (SCRIPT_AT->runs_from_ram) {
        for (unsigned i = 0; run_begin + i < run_end; i++) {
            ((volatile uint32_t *)r->code)[i] = run_begin[i];
        }
        const struct step *steps = SCRIPT_AT->steps;
#ifdef STEPS /* the flash may not be read meanwhile */
        for (unsigned i = 0; i < SCRIPT_SIZE / 4; i++) {
            ((volatile uint32_t *)STEPS)[i] = ((const uint32_t *)steps)[i];
        }
        steps = (const struct step *)STEPS;
#endif
        ((void (*)(const struct step *, struct results *))((uintptr_t)r->code | 1))(steps, r);
    } else {
        run(SCRIPT_AT->steps, r);
    }
}

#define FOUR handle, handle, handle, handle
#define SIXTEEN FOUR, FOUR, FOUR, FOUR
__attribute__((section("vectors"), used)) static void (*const VECTORS[])(void) = {
    (void (*)(void))(RESULTS + 0x2000),
    start,
    handle,
    handle,
    FOUR,
    FOUR,
    FOUR,
    SIXTEEN,
    SIXTEEN,
    SIXTEEN,
    SIXTEEN,
    SIXTEEN,
    SIXTEEN};
