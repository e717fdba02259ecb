/* The boot ROM's functions for the flash. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* The pins of the flash are those of the SSI. */
void connect_internal_flash(void);
/* The flash takes commands, and is read by them alone. */
void flash_exit_xip(void);
/* Whole sectors of 4 KiB; where a block of `block_size` fits, all of that by its own command. */
void flash_range_erase(uint32_t offset, size_t size, uint32_t block_size, uint8_t block_command);
/* Whole pages of 256 bytes. */
void flash_range_program(uint32_t offset, const uint8_t *data, size_t size);
/* The cache holds nothing any more, and the SSI selects the flash by itself. */
void flash_flush_cache(void);
/* The flash is read where it has addresses, slowly and by a command that all have. */
void flash_enter_cmd_xip(void);

void flash_read(uint32_t offset, uint8_t *data, size_t size);
