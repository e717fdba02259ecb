/* What `make bench` has a Cortex-M execute: EXCEPTIONS exceptions, then PROGRAMS words programmed
 * on an nRF52, then a SHA-256 of HASHED bytes of its flash. */
#include <stdint.h>

extern uint32_t flash[], stack_end; /* of the linker script */

static const uint32_t CONSTANTS[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t state[8], words[64];

static inline uint32_t rotate(uint32_t value, int by) {
    return value >> by | value << (32 - by);
}

static void take_block(const uint32_t *block) {
    uint32_t v[8];
    for (int i = 0; i < 16; i++) {
        words[i] = __builtin_bswap32(block[i]);
    }
    for (int i = 16; i < 64; i++) {
        uint32_t a = words[i - 15], b = words[i - 2];
        words[i] = words[i - 16] + words[i - 7] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) +
                   (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
    }
    for (int i = 0; i < 8; i++) {
        v[i] = state[i];
    }
    for (int i = 0; i < 64; i++) {
        uint32_t e = v[4], a = v[0];
        uint32_t t = v[7] + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) +
                     ((e & v[5]) ^ (~e & v[6])) + CONSTANTS[i] + words[i];
        uint32_t u = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) +
                     ((a & v[1]) ^ (a & v[2]) ^ (v[1] & v[2]));
        for (int j = 7; j > 0; j--) {
            v[j] = v[j - 1];
        }
        v[4] += t;
        v[0] = t + u;
    }
    for (int i = 0; i < 8; i++) {
        state[i] += v[i];
    }
}

/* nRF52840 Product Specification 4.3: NVMC. */
static void program(void) {
    volatile uint32_t *ready = (uint32_t *)0x4001e400, *config = (uint32_t *)0x4001e504;
    volatile uint32_t *words = (uint32_t *)0x80000;
    for (int i = 0; i < PROGRAMS; i++) {
        *config = 1;
        words[i] = 0;
        while (!*ready) {
        }
        *config = 0;
    }
}

static void run(void) {
    for (int i = 0; i < EXCEPTIONS; i++) {
        __asm__ volatile("svc 0");
    }
    program();
    for (uint32_t at = 0; at < HASHED / 4; at += 16) {
        take_block(flash + at);
    }
    for (;;) {
        __asm__ volatile("wfi");
    }
}

static void answer(void) {}

__attribute__((section(".vectors"), used)) static const struct {
    uint32_t *stack;
    void (*handlers[15])(void);
} VECTORS = {&stack_end,
             {run, answer, answer, answer, answer, answer, answer, answer, answer, answer, answer,
              answer, answer, answer, answer}};
