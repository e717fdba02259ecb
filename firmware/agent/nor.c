/* Two 16-bit chips with the Intel command set (0x0001) side by side on a 32-bit bus. Sources: JEDEC
 * JESD68 (CFI query), Micron StrataFlash P30-65nm data sheet (commands, status, locking). */
#include "agent/nor.h"

#include <stddef.h>
#include <string.h>

#include "agent/vectors.h"
#include "board/registers.h"

/* The same for both chips. */
#define BOTH(value) ((uint32_t)(value) << 16 | (uint32_t)(value))

enum command {
    READ_ARRAY = 0xff,
    CLEAR_STATUS = 0x50,
    QUERY = 0x98,
    ERASE = 0x20,
    WORD_PROGRAM = 0x40,
    BUFFERED_PROGRAM = 0xe8,
    CONFIRM = 0xd0,
    LOCK_SETUP = 0x60,
    LOCK = 0x01,
    LOCK_DOWN = 0x2f,
    READ_STATUS = 0x70,
};

enum status_bit {
    SR_READY = 0x80,
    SR_ERASE_ERROR = 0x20,
    SR_PROGRAM_ERROR = 0x10,
    SR_VPP_LOW = 0x08,
    SR_LOCKED = 0x02,
    SR_ERRORS = SR_ERASE_ERROR | SR_PROGRAM_ERROR | SR_VPP_LOW | SR_LOCKED,
};

/* Offsets of the CFI query, in words of a chip. */
enum cfi {
    CFI_ADDRESS = 0x55,
    CFI_QRY = 0x10,
    CFI_COMMAND_SET = 0x13,
    CFI_SIZE = 0x27,
    CFI_WRITE_BUFFER = 0x2a,
    CFI_REGIONS = 0x2c,
    CFI_REGION_BLOCKS = 0x2d,
    CFI_REGION_SIZE = 0x2f,
};

/* No chip of this family takes more at once than 512 words, 2 KiB for the pair. QEMU's says 4 KiB,
 * for it gives the buffer of the pair as that of each chip. */
#define WRITE_BUFFER_MAX 2048u
#define WORD 4u /* bytes of the pair at one address */

/* An operation that the chips say has failed is given again, so many times in all. */
#define TRIES 3

/* How long to sleep between looks at the status, microseconds. */
#define PAUSE_WORD 20u
#define PAUSE_BUFFER 100u
#define PAUSE_ERASE 2000u

static volatile uint32_t *const window = (volatile uint32_t *)BOARD_NOR_WINDOW;
static struct nor_geometry geometry;
static struct uart_ring *rings[2];
static void (*waiting)(void);
/* The data of one operation. It is fetched before the operation begins: the caller may keep it in
 * the NOR, and a fault in the middle of one would leave the chips waiting for data. */
static uint32_t buffer[WRITE_BUFFER_MAX / WORD];

const uint8_t *nor_at(uint32_t offset) {
    return (const uint8_t *)BOARD_NOR_WINDOW + offset;
}

const struct nor_geometry *nor_geometry(void) {
    return &geometry;
}

static void command(uint32_t offset, uint32_t value) {
    window[offset / WORD] = BOTH(value);
}

/* Waits until both chips are ready; for ever, because the code to go back to lies in them. Returns
 * the error bits of both. */
static uint32_t wait_ready(uint32_t offset, uint32_t pause) {
    for (;;) {
        const uint32_t status = window[offset / WORD];
        uart_drain(BOARD_UART0, rings[0]);
        uart_drain(BOARD_UART1, rings[1]);
        if ((status & BOTH(SR_READY)) == BOTH(SR_READY)) {
            return (status | status >> 16) & SR_ERRORS;
        }
        if (waiting) {
            waiting();
        }
        sleep_microseconds(pause);
    }
}

void nor_show_array(void) {
    rings[0] = rings[1] = NULL; /* they may be what is broken */
    waiting = NULL;
    command(0, READ_STATUS);
    (void)wait_ready(0, PAUSE_WORD);
    command(0, READ_ARRAY);
}

/* QEMU's chips lose SR.7 with the other bits when the status is cleared, until the next command of
 * two cycles: CLEAR_STATUS is always followed by one. */
static void begin(uint32_t offset) {
    vectors_enter();
    command(offset, CLEAR_STATUS);
    command(offset, LOCK_SETUP);
    command(offset, CONFIRM); /* unlock */
}

static void end(uint32_t offset) {
    command(offset, CLEAR_STATUS);
    command(offset, LOCK_SETUP);
    command(offset, LOCK);
    command(offset, READ_ARRAY);
    vectors_leave();
}

static int verdict(uint32_t errors, int failed) {
    if (errors == 0) {
        return AGENT_OK;
    }
    return errors & SR_LOCKED ? AGENT_LOCKED : failed;
}

/* A number of the query that both chips must agree on: `count` bytes, low byte first. Sets *ok to
 * false when they do not. */
static uint32_t query(uint32_t address, uint32_t count, bool *ok) {
    uint32_t value = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint32_t both = window[address + i];
        *ok = *ok && (both & 0xff) == (both >> 16 & 0xff);
        value |= (both & 0xff) << 8 * i;
    }
    return value;
}

static bool read_geometry(void) {
    bool ok = true;
    const uint32_t signature = query(CFI_QRY, 3, &ok);
    const uint32_t command_set = query(CFI_COMMAND_SET, 2, &ok);
    const uint32_t size = query(CFI_SIZE, 1, &ok);
    const uint32_t write_buffer = query(CFI_WRITE_BUFFER, 2, &ok);
    const uint32_t regions = query(CFI_REGIONS, 1, &ok);
    const uint32_t blocks = query(CFI_REGION_BLOCKS, 2, &ok) + 1;
    const uint32_t block_size = query(CFI_REGION_SIZE, 2, &ok) * 256;
    /* The chips show their array again before anything is concluded from what they said. */
    command(0, READ_ARRAY);
    if (!ok || signature != ('Q' | 'R' << 8 | 'Y' << 16) || command_set != 1 || size > 26 ||
        write_buffer < 2 || write_buffer > 15 || regions != 1 || block_size == 0 ||
        (block_size & (block_size - 1)) != 0 || blocks * block_size != 1u << size) {
        return false;
    }
    geometry = (struct nor_geometry){
        .size = 2u << size,
        .block_size = 2 * block_size,
        .write_buffer = 2u << write_buffer,
    };
    if (geometry.write_buffer > WRITE_BUFFER_MAX) {
        geometry.write_buffer = WRITE_BUFFER_MAX;
    }
    return geometry.write_buffer <= geometry.block_size;
}

int nor_open(struct uart_ring *uart0, struct uart_ring *uart1) {
    rings[0] = uart0;
    rings[1] = uart1;
    waiting = NULL;
    vectors_enter();
    command(0, READ_ARRAY);
    command(CFI_ADDRESS * WORD, QUERY);
    const bool ok = read_geometry();
    if (!ok) {
        geometry = (struct nor_geometry){0};
    }
    vectors_leave();
    return ok ? AGENT_OK : AGENT_NOT_FOUND;
}

static bool in_range(uint32_t offset, uint32_t length) {
    return offset <= geometry.size && length <= geometry.size - offset;
}

static int erase_block(uint32_t offset) {
    begin(offset);
    command(offset, ERASE);
    command(offset, CONFIRM);
    const uint32_t errors = wait_ready(offset, PAUSE_ERASE);
    end(offset);
    return verdict(errors, AGENT_ERASE_FAILED);
}

int nor_erase(uint32_t offset) {
    if (geometry.size == 0 || offset % geometry.block_size != 0 ||
        !in_range(offset, geometry.block_size)) {
        return AGENT_RANGE;
    }
    int status = AGENT_ERASE_FAILED;
    for (int i = 0; i < TRIES && status == AGENT_ERASE_FAILED; i++) {
        status = erase_block(offset);
    }
    return status;
}

static uint32_t program_buffer(uint32_t offset, uint32_t words) {
    if (words == 1) {
        command(offset, WORD_PROGRAM);
        window[offset / WORD] = buffer[0];
        return wait_ready(offset, PAUSE_WORD);
    }
    command(offset, BUFFERED_PROGRAM);
    const uint32_t refused = wait_ready(offset, PAUSE_WORD);
    if (refused) {
        return refused;
    }
    command(offset, words - 1);
    for (uint32_t i = 0; i < words; i++) {
        window[offset / WORD + i] = buffer[i];
    }
    command(offset, CONFIRM);
    return wait_ready(offset, PAUSE_BUFFER);
}

/* One operation: all of it lies within one write buffer's borders. */
static int program_chunk(uint32_t offset, const uint8_t *data, uint32_t length) {
    const uint32_t start = offset & ~(WORD - 1);
    const uint32_t words = (offset + length - start + WORD - 1) / WORD;
    uint8_t *const bytes = (uint8_t *)buffer;
    bool blank = true;
    /* What else is in the first and the last word is programmed once more with what it is. */
    memcpy(buffer, nor_at(start), words * WORD);
    for (uint32_t i = 0; i < length; i++) {
        uint8_t *const byte = &bytes[offset - start + i];
        if (data[i] & ~*byte) {
            return AGENT_VERIFY_FAILED; /* a program only clears bits: it would come out wrong */
        }
        blank = blank && data[i] == 0xff;
        *byte = data[i];
    }
    if (blank) {
        return AGENT_OK;
    }
    begin(start);
    const uint32_t errors = program_buffer(start, words);
    end(start);
    if (errors) {
        return verdict(errors, AGENT_PROGRAM_FAILED);
    }
    return memcmp(nor_at(start), buffer, words * WORD) == 0 ? AGENT_OK : AGENT_VERIFY_FAILED;
}

int nor_program(uint32_t offset, const void *data, uint32_t length) {
    const uint8_t *from = data;
    if (geometry.size == 0 || !in_range(offset, length)) {
        return AGENT_RANGE;
    }
    while (length > 0) {
        const uint32_t to_border = geometry.write_buffer - offset % geometry.write_buffer;
        const uint32_t chunk = length < to_border ? length : to_border;
        int status = AGENT_PROGRAM_FAILED;
        for (int i = 0; i < TRIES && status == AGENT_PROGRAM_FAILED; i++) {
            status = program_chunk(offset, from, chunk);
        }
        if (status != AGENT_OK) {
            return status;
        }
        offset += chunk;
        from += chunk;
        length -= chunk;
    }
    return AGENT_OK;
}

void nor_on_wait(void (*hook)(void)) {
    waiting = hook;
}

int nor_lock_down(uint32_t offset, uint32_t length) {
    if (geometry.size == 0 || !in_range(offset, length)) {
        return AGENT_RANGE;
    }
    vectors_enter();
    for (uint32_t at = offset & ~(geometry.block_size - 1); at < offset + length;
         at += geometry.block_size) {
        command(at, LOCK_SETUP);
        command(at, LOCK_DOWN);
    }
    command(offset, READ_ARRAY);
    vectors_leave();
    return AGENT_OK;
}
