/* The pages of the flash that littlefs has, as it asks for them. It calls a page a block. */
#pragma once

#include "lfs.h"

#define PAGES_START 0x10000u
enum { PAGE_COUNT = 8 };

void pages_start(void);
int pages_read(const struct lfs_config *config, lfs_block_t page, lfs_off_t offset, void *to,
               lfs_size_t size);
int pages_program(const struct lfs_config *config, lfs_block_t page, lfs_off_t offset,
                  const void *from, lfs_size_t size);
int pages_erase(const struct lfs_config *config, lfs_block_t page);
int pages_sync(const struct lfs_config *config);
