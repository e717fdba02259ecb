/* The RAM-resident updater: the interface between it and boot or the application.
 *
 * The agent is a program of its own, linked at BOARD_AGENT_BASE. Its flat binary is embedded in the
 * programs that need it; agent_load() copies it into the SRAM. Offsets count from the NOR's start.
 */
#pragma once

#include <stdint.h>

#include "board_map.h"

#define AGENT_MAGIC 0x544e4741u /* "AGNT" */
#define AGENT_VERSION 2u

/* What the CFI query says about the pair of chips, in bytes. */
struct nor_geometry {
    uint32_t size;
    uint32_t block_size;
    uint32_t write_buffer;
};

struct rewrite_job {
    const uint8_t *image; /* in SRAM: header, body, TLVs */
    uint32_t length;      /* bytes */
    uint32_t offset;      /* in the NOR, start of a block */
};

/* Bytes that a UART received. `head` and `tail` count freely, the place is counter & mask; `mask`
 * is the size, a power of two, minus 1. The receiver moves `head`, the owner moves `tail`. Bytes
 * that find no room are dropped. */
struct uart_ring {
    uint8_t *data;
    uint32_t mask;
    volatile uint32_t head, tail;
};

enum agent_status {
    AGENT_OK = 0,
    AGENT_NOT_FOUND = -1,
    AGENT_ERASE_FAILED = -2,
    AGENT_PROGRAM_FAILED = -3,
    AGENT_LOCKED = -4,
    AGENT_RANGE = -5,
    AGENT_VERIFY_FAILED = -6,
};

struct agent_api {
    uint32_t magic; /* AGENT_MAGIC */
    uint32_t version;
    /* Resets the chips and asks them for their geometry; the rings may be NULL. Must be called
     * first. */
    int (*init)(struct uart_ring *uart0, struct uart_ring *uart1);
    const struct nor_geometry *(*geometry)(void);
    /* The block that starts at `offset`. */
    int (*erase)(uint32_t offset);
    /* Any alignment; verified by reading back. The data may lie in the NOR. */
    int (*program)(uint32_t offset, const void *data, uint32_t length);
    /* Every block that the range touches stays locked until the next power-up. */
    int (*lock_down)(uint32_t offset, uint32_t length);
    /* Calls `hook` (NULL: nothing) again and again while the chips are busy, until the next init:
     * it must not touch the NOR, nor need it, nor call the agent. The rewrite does without. */
    void (*on_wait)(void (*hook)(void));
    /* Brings the NOR to the image, block by block, and starts boot again. */
    void (*rewrite)(const struct rewrite_job *job) __attribute__((noreturn));
};

#define AGENT ((const struct agent_api *)BOARD_AGENT_BASE)

/* Copies the embedded agent to BOARD_AGENT_BASE (in board/agent_load.c, not part of the agent). */
void agent_load(void);
