/* The models by their names. */
#include "models.h"

#include "core.h"
#include "devices.h"
#include "grow.h"

static const struct {
    const char *name;
    void (*add)(struct mcu *m, const struct device_place *place);
} MODELS[] = {
    {"flash_stm32f1", flash_stm32f1_add},
    {"flash_stm32f4", flash_stm32f4_add},
    {"flash_stm32l4", flash_stm32l4_add},
    {"flash_stm32l4_one_bank", flash_stm32l4_one_bank_add},
    {"flash_stm32g0", flash_stm32g0_add},
    {"flash_stm32g0_one_bank", flash_stm32g0_one_bank_add},
    {"flash_stm32h5", flash_stm32h5_add},
    {"flash_stm32h7", flash_stm32h7_add},
    {"flash_nrf", flash_nrf_add},
    {"uart_stm32", uart_stm32_add},
    {"uart_stm32v2", uart_stm32v2_add},
    {"uart_pl011", uart_pl011_add},
    {"uart_nrf", uart_nrf_add},
    {"gpio_stm32", gpio_stm32_add},
    {"i2c_stm32", i2c_stm32_add},
    {"spi_stm32", spi_stm32_add},
    {"eeprom_i2c", eeprom_i2c_add},
    {"nor_spi", nor_spi_add},
    {"nor_qspi", nor_qspi_add},
    {"ssi_rp2040", ssi_rp2040_add},
    {"resets_rp2040", resets_rp2040_add},
    {"clocks_rp2040", clocks_rp2040_add},
    {"watchdog_rp2040", watchdog_rp2040_add},
    {"timer_rp2040", timer_rp2040_add},
    {"sio_rp2040", sio_rp2040_add},
    {"nor_cfi_amd", nor_cfi_amd_add},
    {"nor_cfi_intel", nor_cfi_intel_add},
    {"iwdg_stm32", iwdg_stm32_add},
    {"wwdg_stm32", wwdg_stm32_add},
    {"backup_stm32", backup_stm32_add},
    {"power_nrf", power_nrf_add},
    {"rtc_nrf", rtc_nrf_add},
    {"timer_nrf", timer_nrf_add},
    {"rng_nrf", rng_nrf_add},
    {"ppi_nrf", ppi_nrf_add},
    {"pwr_stm32", pwr_stm32_add},
    {"standby_stm32", standby_stm32_add},
    {"timer_stm32", timer_stm32_add},
};

void *device_memory(struct mcu *m, size_t size) {
    void *memory = calloc(1, size);
    if (!memory || m->memory_count == MOST_MEMORIES) {
        abort();
    }
    m->memories[m->memory_count++] = (struct memory){memory, size};
    return memory;
}

void recall(struct mcu *m, uint32_t number) {
    if (m->joins) {
        m->recalled =
            grown(m->recalled, &m->recalled_capacity, m->recalled_count + 1, sizeof *m->recalled);
        m->recalled[m->recalled_count++] = number;
    }
}

void device_disown(struct mcu *m, const void *memory) {
    for (size_t i = 0; i < m->memory_count; i++) {
        if (m->memories[i].at == memory) {
            m->memories[i] = m->memories[--m->memory_count];
        }
    }
}

void device_free(struct device *d) {
    free(d);
}

bool mcu_add_model(struct mcu *m, const char *model, const struct device_place *place) {
    assert(m && model && place);
    for (size_t i = 0; i < sizeof MODELS / sizeof *MODELS; i++) {
        if (strcmp(MODELS[i].name, model) == 0) {
            MODELS[i].add(m, place);
            return true;
        }
    }
    return false;
}

void flash_add_region(struct mcu *m, struct flash *f, const struct flash_place *place,
                      struct device *controller) {
    assert(place->cells && place->size > 0);
    f->base = place->base;
    f->size = place->size;
    f->alias = place->alias;
    f->cells = place->cells;
    f->controller = controller;
    f->check_unit = place->check_unit;
    f->check = place->check_unit ? place->cells + place->size : NULL;
    mcu_add_flash(m, f);
}

struct device *find_device_at(struct mcu *m, uint32_t base) {
    for (size_t i = 0; i < m->device_count; i++) {
        if (m->devices[i]->base == base) {
            return m->devices[i];
        }
    }
    return NULL;
}

uint32_t look_at_register(struct mcu *m, uint32_t address) {
    for (size_t i = 0; i < m->device_count; i++) {
        struct device *d = m->devices[i];
        if (address - d->base < d->size) {
            return d->read(m, d, address - d->base, 4);
        }
    }
    return plain_look(m, address);
}

void write_device(struct mcu *m, uint32_t address, uint32_t value) {
    for (size_t i = 0; i < m->device_count; i++) {
        struct device *d = m->devices[i];
        if (address - d->base < d->size) {
            d->write(m, d, (address - d->base) & ~3u, 4, value);
            mcu_look_again(m, d);
            return;
        }
    }
    plain_write(m, address & ~3u, 4, value);
}

bool read_option(struct mcu *m, uint32_t address, uint8_t *byte) {
    for (size_t i = 0; i < m->region_count; i++) {
        const struct flash *f = m->regions[i].flash;
        if (address - f->base < f->size) {
            note_cells(m, f, address - f->base, 1);
            *byte = f->cells[address - f->base];
            return true;
        }
    }
    return false;
}

bool sleeps_deeply(struct mcu *m) {
    enum { SLEEPDEEP = 1u << 2 }; /* of SCR, Armv7-M ARM B3.2.7 */
    return m->waiting && m->scs.scr & SLEEPDEEP;
}

bool stand_by(struct mcu *m, uint64_t *look, uint64_t ns) {
    if (*look > mcu_now(m)) {
        return false;
    }
    *look = mcu_now(m) + STANDBY_LOOK_NS;
    if (!sleeps_deeply(m)) {
        return false;
    }
    lose_ram(m);
    mcu_elapse(m, ns);
    mcu_reset_for(m, CAUSE_STANDBY);
    return true;
}

void lose_ram(struct mcu *m) {
    uint32_t state = 1;
    for (size_t i = 0; i < m->ram_count; i++) {
        for (uint32_t at = 0; !m->rams[i].constant && at < m->rams[i].size; at += 4) {
            state = state * 1664525u + 1013904223u; /* Numerical Recipes, ranqd1 */
            put32(m->rams[i].memory + at, state);
        }
    }
    forget_ram_code(m);
}

bool runs_from_flash(struct mcu *m) {
    uint32_t offset;
    return flash_of_code(m, &offset) != NULL;
}

const struct flash *flash_of_code(struct mcu *m, uint32_t *offset) {
    const struct region *r = find_flash(m, m->block_pc, offset);
    return r ? r->flash : NULL;
}
