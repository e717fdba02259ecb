/* Backup registers of STM32: they outlive all resets and Standby, not the loss of the power. There
 * is no battery. Source: RM0008 chapter 6, RM0090 chapter 26; where they are in newer ones: their
 * headers of STMicroelectronics. */
#include "devices.h"

enum { REGISTERS_MAX = 32 };

struct backup {
    struct device device;
    uint32_t registers[REGISTERS_MAX];
    uint32_t unlock, unlock_mask, kept; /* DBP: register and bit; the bits of each register */
};

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    const struct backup *b = (const struct backup *)d;
    (void)m;
    return part_of(b->registers[offset / 4], offset, size);
}

static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct backup *b = (struct backup *)d;
    uint32_t *word = &b->registers[offset / 4];
    if (look_at_register(m, b->unlock) & b->unlock_mask) {
        *word = with_part(*word, offset, size, value) & b->kept;
    }
}

static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct backup *b = (struct backup *)d;
    (void)m;
    if (kind == RESET_POWER) {
        memset(b->registers, 0, sizeof b->registers);
    }
}

void backup_stm32_add(struct mcu *m, const struct device_place *place) {
    struct backup *b = device_memory(m, sizeof *b);
    b->device = (struct device){.base = place->base,
                                .size = 4 * place->numbers[0],
                                .read = read,
                                .write = write,
                                .reset = reset,
                                .free = device_free};
    assert(place->numbers[0] <= REGISTERS_MAX);
    b->unlock = place->numbers[1];
    b->unlock_mask = place->numbers[2];
    b->kept = UINT32_MAX >> (32 - place->numbers[3]);
    mcu_add_device(m, &b->device);
}
