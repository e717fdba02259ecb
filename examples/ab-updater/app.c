/* The application: on `u` it takes its successor by XMODEM-CRC, into the slot that it is not in. */
#include "image.h"

enum { SOH = 1, EOT = 4, ACK = 6, NAK = 0x15, BLOCK_SIZE = 128 };

extern const uint8_t program_start[];

static const char banner[] = {'A', 'P', 'P', ' ', 'v', '0' + VERSION, '\r', '\n', '\0'};

static uint16_t crc16(const uint8_t *bytes, uint32_t size) {
    uint16_t crc = 0;
    for (uint32_t i = 0; i < size; i++) {
        crc ^= (uint16_t)(bytes[i] << 8);
        for (unsigned bit = 0; bit < 8; bit++) {
            crc = (uint16_t)(crc << 1 ^ (crc & 0x8000 ? 0x1021 : 0));
        }
    }
    return crc;
}

/* Take a block whose first byte has come. Says whether it is block `number`, and intact. */
static bool take_block(uint8_t *block, uint8_t number) {
    uint8_t head[2], sum[2];
    for (unsigned i = 0; i < 2; i++) {
        head[i] = uart_get();
    }
    for (unsigned i = 0; i < BLOCK_SIZE; i++) {
        block[i] = uart_get();
    }
    for (unsigned i = 0; i < 2; i++) {
        sum[i] = uart_get();
    }
    return head[0] == number && head[1] == (uint8_t)~number &&
           crc16(block, BLOCK_SIZE) == (sum[0] << 8 | sum[1]);
}

/* All but the header, which makes an image of it: that comes last. */
static void program_block(uint32_t slot, uint32_t offset, const uint8_t *block) {
    const uint32_t after = HEADER_OFFSET + sizeof(struct header);
    if (offset == 0) {
        flash_program(slot, block, HEADER_OFFSET);
        flash_program(slot + after, block + after, BLOCK_SIZE - after);
    } else {
        flash_program(slot + offset, block, BLOCK_SIZE);
    }
}

static void erase_slot(uint32_t slot) {
    for (uint32_t offset = 0; offset < SLOT_SIZE; offset += FLASH_PAGE_SIZE) {
        flash_erase(slot + offset);
    }
}

static void take_update(uint32_t slot) {
    _Alignas(4) uint8_t block[BLOCK_SIZE];
    struct header header = {0};
    uint32_t offset = 0;
    erase_slot(slot);
    uart_put('C');
    for (uint8_t first = uart_get(); first != EOT; first = uart_get()) {
        if (first != SOH) {
            continue;
        }
        if (!take_block(block, (uint8_t)(offset / BLOCK_SIZE + 1)) || offset >= MARKS) {
            uart_put(NAK);
            continue;
        }
        if (offset == 0) {
            header = *(const struct header *)(block + HEADER_OFFSET);
        }
        program_block(slot, offset, block);
        offset += BLOCK_SIZE;
        uart_put(ACK);
    }
    flash_program(slot + HEADER_OFFSET, &header, sizeof header);
    uart_put(ACK);
}

int main(void) {
    const uint32_t here = (uint32_t)(uintptr_t)program_start;
    uart_start();
    if (!was_confirmed(here)) {
        set_mark(here, CONFIRMED);
    }
    print(banner);
    for (;;) {
        if (uart_get() == 'u') {
            take_update(here == SLOT_A ? SLOT_B : SLOT_A);
            reset_chip();
        }
    }
}
