#include "sha256.h"

#include <string.h>

enum { BLOCK = 64, ROUNDS = 64, LENGTH_AT = 56 };

static const uint32_t constants[ROUNDS] = {
    0x428A2F98, 0x71374491, 0xB5C0FBCF, 0xE9B5DBA5, 0x3956C25B, 0x59F111F1, 0x923F82A4, 0xAB1C5ED5,
    0xD807AA98, 0x12835B01, 0x243185BE, 0x550C7DC3, 0x72BE5D74, 0x80DEB1FE, 0x9BDC06A7, 0xC19BF174,
    0xE49B69C1, 0xEFBE4786, 0x0FC19DC6, 0x240CA1CC, 0x2DE92C6F, 0x4A7484AA, 0x5CB0A9DC, 0x76F988DA,
    0x983E5152, 0xA831C66D, 0xB00327C8, 0xBF597FC7, 0xC6E00BF3, 0xD5A79147, 0x06CA6351, 0x14292967,
    0x27B70A85, 0x2E1B2138, 0x4D2C6DFC, 0x53380D13, 0x650A7354, 0x766A0ABB, 0x81C2C92E, 0x92722C85,
    0xA2BFE8A1, 0xA81A664B, 0xC24B8B70, 0xC76C51A3, 0xD192E819, 0xD6990624, 0xF40E3585, 0x106AA070,
    0x19A4C116, 0x1E376C08, 0x2748774C, 0x34B0BCB5, 0x391C0CB3, 0x4ED8AA4A, 0x5B9CCA4F, 0x682E6FF3,
    0x748F82EE, 0x78A5636F, 0x84C87814, 0x8CC70208, 0x90BEFFFA, 0xA4506CEB, 0xBEF9A3F7, 0xC67178F2,
};

static uint32_t turn(uint32_t word, unsigned by) {
    return word >> by | word << (32 - by);
}

/* The state is a ring: instead of moving its words, each round begins one earlier. */
static void add_block(uint32_t state[8], const uint8_t *block) {
    uint32_t ring[8];
    uint32_t words[16];
    memcpy(ring, state, sizeof ring);
    for (unsigned round = 0; round < ROUNDS; round++) {
        uint32_t *const word = &words[round % 16];
        if (round < 16) {
            const uint8_t *const bytes = block + 4 * round;
            *word = (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 |
                    bytes[3];
        } else {
            const uint32_t near = words[(round - 2) % 16];
            const uint32_t far = words[(round - 15) % 16];
            *word += words[(round - 7) % 16] + (turn(near, 17) ^ turn(near, 19) ^ near >> 10) +
                     (turn(far, 7) ^ turn(far, 18) ^ far >> 3);
        }
#define OF(place) ring[((place) + ROUNDS - round) % 8]
        const uint32_t first = OF(0);
        const uint32_t fifth = OF(4);
        const uint32_t sum = OF(7) + (turn(fifth, 6) ^ turn(fifth, 11) ^ turn(fifth, 25)) +
                             (OF(6) ^ (fifth & (OF(5) ^ OF(6)))) + constants[round] + *word;
        OF(3) += sum;
        OF(7) = sum + (turn(first, 2) ^ turn(first, 13) ^ turn(first, 22)) +
                ((first & OF(1)) | (OF(2) & (first | OF(1))));
#undef OF
    }
    for (unsigned i = 0; i < 8; i++) {
        state[i] += ring[i];
    }
}

static void put_big(uint8_t *to, uint32_t word) {
    for (unsigned i = 0; i < 4; i++) {
        to[i] = (uint8_t)(word >> (24 - 8 * i));
    }
}

void sha256(uint8_t digest[32], const uint8_t *data, uint32_t length) {
    uint32_t state[8] = {0x6A09E667, 0xBB67AE85, 0x3C6EF372, 0xA54FF53A,
                         0x510E527F, 0x9B05688C, 0x1F83D9AB, 0x5BE0CD19};
    uint8_t last[BLOCK] = {0};
    const uint32_t rest = length % BLOCK;
    for (uint32_t done = 0; done < length - rest; done += BLOCK) {
        add_block(state, data + done);
    }
    memcpy(last, data + length - rest, rest);
    last[rest] = 0x80;
    if (rest >= LENGTH_AT) {
        add_block(state, last);
        memset(last, 0, sizeof last);
    }
    put_big(last + LENGTH_AT, length >> 29);
    put_big(last + LENGTH_AT + 4, length << 3);
    add_block(state, last);
    for (unsigned i = 0; i < 8; i++) {
        put_big(digest + 4 * i, state[i]);
    }
}
