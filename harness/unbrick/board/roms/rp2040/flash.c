#include "roms/rp2040/flash.h"

#include "roms/rp2040/registers.h"

enum { PAGE = 256, SECTOR = 4096, BYTE_BITS = 8, WORD_BITS = 32, ADDRESS_BITS = 24 };
enum { CLOCK_DIVIDER = 6 };
enum { POLL_ROUNDS = 512 }; /* of a loop, between two looks at the status */
enum {
    COMMAND_PROGRAM = 0x02,
    COMMAND_READ = 0x03,
    COMMAND_READ_STATUS = 0x05,
    COMMAND_WRITE_ENABLE = 0x06,
    COMMAND_ERASE_SECTOR = 0x20
};
enum { STATUS_BUSY = 1 };

static void force_select(uint32_t level) {
    QSPI_CTRL(QSPI_SS) = level;
}

static uint8_t exchange(uint8_t byte) {
    SSI_DR = byte;
    while (!(SSI_SR & SR_RFNE)) {
    }
    return (uint8_t)SSI_DR;
}

static void begin_command(uint8_t command) {
    force_select(OUTOVER_LOW);
    exchange(command);
}

static void begin_at(uint8_t command, uint32_t offset) {
    begin_command(command);
    for (int shift = ADDRESS_BITS - BYTE_BITS; shift >= 0; shift -= BYTE_BITS) {
        exchange((uint8_t)(offset >> shift));
    }
}

static void end_command(void) {
    force_select(OUTOVER_HIGH);
}

static void pause(void) {
    uint32_t rounds = POLL_ROUNDS;
    __asm__ volatile("1: subs %0, %0, #1\n bne 1b" : "+l"(rounds) : : "cc");
}

static void wait_until_ready(void) {
    uint8_t status;
    do {
        pause();
        begin_command(COMMAND_READ_STATUS);
        status = exchange(0);
        end_command();
    } while (status & STATUS_BUSY);
}

static void enable_write(void) {
    begin_command(COMMAND_WRITE_ENABLE);
    end_command();
}

void connect_internal_flash(void) {
    const uint32_t blocks = RESET_IO_QSPI | RESET_PADS_QSPI;
    CLEARED(RESETS_RESET) = blocks;
    while ((REGISTER(RESETS_DONE) & blocks) != blocks) {
    }
    for (uint32_t pin = 0; pin < QSPI_PINS; pin++) {
        QSPI_CTRL(pin) = 0;
    }
}

/* Bytes of ones end what a flash does between two reads without a command. */
void flash_exit_xip(void) {
    enum { ONES = 0xff, BYTES = 4 };
    SSI_SSIENR = 0;
    SSI_BAUDR = CLOCK_DIVIDER;
    SSI_CTRLR0 = (BYTE_BITS - 1) << CTRLR0_DFS_SHIFT;
    SSI_SER = 1;
    SSI_SSIENR = 1;
    begin_command(ONES);
    for (int i = 1; i < BYTES; i++) {
        exchange(ONES);
    }
    end_command();
}

void flash_range_erase(uint32_t offset, size_t size, uint32_t block_size, uint8_t block_command) {
    for (uint32_t end = offset + size; offset < end;) {
        int is_block = offset % block_size == 0 && end - offset >= block_size;
        enable_write();
        begin_at(is_block ? block_command : COMMAND_ERASE_SECTOR, offset);
        end_command();
        wait_until_ready();
        offset += is_block ? block_size : SECTOR;
    }
}

void flash_range_program(uint32_t offset, const uint8_t *data, size_t size) {
    for (uint32_t end = offset + size; offset < end; offset += PAGE, data += PAGE) {
        enable_write();
        begin_at(COMMAND_PROGRAM, offset);
        for (int i = 0; i < PAGE; i++) {
            exchange(data[i]);
        }
        end_command();
        wait_until_ready();
    }
}

void flash_flush_cache(void) {
    XIP_FLUSH = 1;
    (void)XIP_FLUSH; /* it answers when all is done */
    XIP_CTRL |= XIP_ENABLED;
    QSPI_CTRL(QSPI_SS) = 0;
}

void flash_enter_cmd_xip(void) {
    enum { ADDRESS_UNIT = 4 };
    SSI_SSIENR = 0;
    SSI_CTRLR0 = (WORD_BITS - 1) << CTRLR0_DFS_SHIFT | CTRLR0_EEPROM_READ;
    SSI_CTRLR1 = 0;
    SSI_SPI_CTRLR0 = (uint32_t)COMMAND_READ << SPI_XIP_CMD_SHIFT | SPI_INST_L_8 |
                     ADDRESS_BITS / ADDRESS_UNIT << SPI_ADDR_L_SHIFT;
    SSI_SSIENR = 1;
}

void flash_read(uint32_t offset, uint8_t *data, size_t size) {
    begin_at(COMMAND_READ, offset);
    for (size_t i = 0; i < size; i++) {
        data[i] = exchange(0);
    }
    end_command();
}
