/* The resident program: what boot hands over to it.
 *
 * It is a program of its own, linked at BOARD_RESIDENT_BASE, so that it goes on running while the
 * NOR is erased and programmed. Its flat binary is embedded in boot, which copies it into the SRAM
 * and starts it when there is no application to start, or when an update is commanded. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "board/handover.h"
#include "board_map.h"

#define RESIDENT_MAGIC 0x53455252u /* "RRES" */
#define RESIDENT_TEXT_SIZE 64u

/* Lies at the end of the program's region. Boot fills it, texts included: the program must not need
 * the NOR for them. */
struct resident_start {
    uint32_t magic;                  /* RESIDENT_MAGIC */
    bool commanded;                  /* an update is commanded: else the restoration state */
    bool installed;                  /* what is in the application's partition is valid */
    bool journal_affirmed;           /* by boot, and unchanged since */
    char reason[RESIDENT_TEXT_SIZE]; /* of the restoration state, for a person: two parts of */
    char detail[RESIDENT_TEXT_SIZE]; /* one sentence */
};

#define RESIDENT_START                                                                             \
    ((struct resident_start *)(BOARD_RESIDENT_BASE + BOARD_RESIDENT_SIZE -                         \
                               sizeof(struct resident_start)))

/* resident.ld leaves so much. */
_Static_assert(sizeof(struct resident_start) + sizeof(struct handover) <= 0x100,
               "no room for what is handed over");

/* What is left of the pool while the resident program runs. */
#define RESIDENT_POOL_SIZE (BOARD_RESIDENT_BASE - BOARD_POOL_BASE)
