/* Instructions whose fields hold addresses: what they refer to, and how they are made to refer to
 * something else. Places and targets are offsets in an image whose address is a multiple of four.
 * 32-bit Thumb instructions are numbers with the first halfword on top. The functions that make an
 * instruction return false when it does not reach. Encodings: Arm ARM, DDI 0406C. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { DELTA_DATA = 0, DELTA_THUMB = 1, DELTA_ARM = 2 };

/* B, BL, BLX and B<c>; in Thumb those of 32 bits. */
bool delta_branch(int isa, uint32_t word, int64_t place, int64_t *target);
bool delta_with_branch(int isa, uint32_t *word, int64_t place, int64_t target);

/* Loads of, and addresses of, literals; in Thumb those of 32 bits. */
bool delta_load(int isa, uint32_t word, int64_t place, int64_t *target);
bool delta_with_load(int isa, uint32_t *word, int64_t place, int64_t target);

/* MOVW and MOVT: the half that they load. */
bool delta_move(int isa, uint32_t word, uint32_t *half);
bool delta_is_top(int isa, uint32_t word);
bool delta_same_register(int isa, uint32_t word, uint32_t other);
uint32_t delta_with_half(int isa, uint32_t word, uint32_t half);

/* Thumb, 16 bits: B, B<c>, CBZ, CBNZ; LDR (literal), ADR. */
bool delta_short_branch(uint32_t half, int64_t place, int64_t *target);
bool delta_with_short_branch(uint32_t *half, int64_t place, int64_t target);
bool delta_short_load(uint32_t half, int64_t place, int64_t *target);
bool delta_with_short_load(uint32_t *half, int64_t place, int64_t target);
