/* What lies where in the flash of the nRF52840. */
#pragma once

#include <stdint.h>

#include "chip.h"

#define APP 0x00008000u      /* the application */
#define APP_SIZE 0x00008000u /* bytes that it may have; so many are needed in the RAM, too */
#define STAGED 0x00010000u   /* the update, as it came; one page */
#define RECORD 0x00011000u   /* the record of an update that has begun; one page */
#define LOG 0x00012000u      /* the redo log: pages that are to replace others */
#ifndef LOG_PAGES
#define LOG_PAGES 3u /* that many may differ between two images */
#endif

#define STAGED_MAGIC 0x53415455u
#define STAGED_SIZE (FLASH_PAGE_SIZE - 12u) /* bytes of a differential file at most */

/* Whoever puts an update here programs the first word last, and only over what is erased. */
struct staged {
    uint32_t magic;
    uint32_t length; /* of the file, bytes */
    uint32_t crc;    /* CRC-32 of the file */
    uint8_t file[STAGED_SIZE];
};
