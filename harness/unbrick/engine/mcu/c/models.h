/* The models of devices, as a chip's file names them: what the host hands to each. */
#pragma once

#include "mcu.h"

#define NO_INTERRUPT UINT32_MAX

/* A region of flash, and its erase blocks. `cells` and `block_sizes` are the host's. Behind the
 * cells are their check cells: a byte for each `check_unit` bytes; 0: it has none. */
struct flash_place {
    uint32_t base, size;
    uint32_t alias; /* UINT32_MAX: none */
    uint8_t *cells;
    const uint32_t *block_sizes;
    uint32_t block_count;
    uint32_t check_unit;
};

struct device_place {
    uint32_t base;
    uint32_t interrupt;              /* NO_INTERRUPT: none */
    uint32_t baud;                   /* of UARTs whose registers do not say it */
    const uint32_t *numbers;         /* in the order of unbrick/board/device_models.py */
    const struct flash_place *flash; /* the regions that it controls; NULL: none */
};

/* A register that has no model but a value after a reset. */
struct register_place {
    uint32_t address, reset;
};

/* What is written to some bits of a register shows in others, of the same one or another. */
struct ready_place {
    uint32_t enable, enable_mask;
    uint32_t ready, ready_mask; /* as many bits */
};

#pragma GCC visibility push(default)

/* Flash that no device controls: a store to it is a fault of the firmware. */
void mcu_add_rom(struct mcu *m, const struct flash_place *place);
/* Adds a device. False: there is no model of that name. */
bool mcu_add_model(struct mcu *m, const char *model, const struct device_place *place);
/* Adds registers without a model, and what follows what; once for a chip. */
void mcu_add_registers(struct mcu *m, const struct register_place *registers, size_t count,
                       const struct ready_place *rules, size_t rule_count);

#pragma GCC visibility pop
