/* Registers of the RP2040 that its boot ROM uses. Source: the RP2040 data sheet,
 * sections 2.14, 2.19, 4.7 and 4.10. */
#pragma once

#include <stdint.h>

#define REGISTER(address) (*(volatile uint32_t *)(uintptr_t)(address))
#define CLEARED(address) REGISTER((address) + 0x3000u) /* bits that are written as 1 become 0 */

#define RESETS_RESET 0x4000c000u
#define RESETS_DONE 0x4000c008u
enum { RESET_IO_QSPI = 1 << 6, RESET_PADS_QSPI = 1 << 9 };

#define QSPI_CTRL(pin) REGISTER(0x40018004u + 8u * (pin)) /* SCLK, SS, SD0 to SD3 */
enum { QSPI_PINS = 6, QSPI_SS = 1 };
enum { OUTOVER_LOW = 2 << 8, OUTOVER_HIGH = 3 << 8 };

#define WATCHDOG_SCRATCH(number) REGISTER(0x4005800cu + 4u * (number))

#define XIP_CTRL REGISTER(0x14000000u)
#define XIP_FLUSH REGISTER(0x14000004u)
enum { XIP_ENABLED = 1 };

#define SSI_CTRLR0 REGISTER(0x18000000u)
#define SSI_CTRLR1 REGISTER(0x18000004u)
#define SSI_SSIENR REGISTER(0x18000008u)
#define SSI_SER REGISTER(0x18000010u)
#define SSI_BAUDR REGISTER(0x18000014u)
#define SSI_SR REGISTER(0x18000028u)
#define SSI_DR REGISTER(0x18000060u)
#define SSI_SPI_CTRLR0 REGISTER(0x180000f4u)
enum { SR_RFNE = 1 << 3 };
enum { CTRLR0_DFS_SHIFT = 16, CTRLR0_EEPROM_READ = 3 << 8 };
enum { SPI_ADDR_L_SHIFT = 2, SPI_INST_L_8 = 2 << 8, SPI_XIP_CMD_SHIFT = 24 };

#define SCS_VTOR REGISTER(0xe000ed08u)
