/* The devices of microcontrollers, as they know each other. */
#pragma once

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "models.h"
#include "parts.h"

#define NS_PER_US 1000u
#define STANDBY_LOOK_NS 10000u /* between two looks of stand_by() */
#define OPERATION_MAX 2048u    /* bytes that one program takes at most */

/* An operation of a flash controller that is under way. */
struct flash_job {
    bool busy;
    uint32_t kind; /* enum op_kind */
    struct flash *flash;
    struct flash *more; /* a second region that the same erase takes; NULL: none */
    uint32_t offset, length;
    uint32_t bank; /* bytes; code in another bank goes on meanwhile; 0: there is one bank */
    uint8_t data[OPERATION_MAX];
    uint64_t start, end;
};

/* models.c */
/* Zeroed; never NULL. All that a device remembers is in such memory: joins.c compares it. */
void *device_memory(struct mcu *m, size_t size);
/* A number that a device has found out from the flash, and remembers in other memory. */
void recall(struct mcu *m, uint32_t number);
void device_disown(struct mcu *m, const void *memory); /* it is not a device's any more */
void device_free(struct device *d); /* of device_memory(), with nothing besides */
void flash_add_region(struct mcu *m, struct flash *f, const struct flash_place *place,
                      struct device *controller);
/* The device with this base; NULL: there is none yet. */
struct device *find_device_at(struct mcu *m, uint32_t base);
/* A write of a word by another device, not by code. */
void write_device(struct mcu *m, uint32_t address, uint32_t value);
/* What such a register holds, for another device; reading it changes nothing. */
uint32_t look_at_register(struct mcu *m, uint32_t address);
/* A byte of flash, also where no address leads to. False: there is none. */
bool read_option(struct mcu *m, uint32_t address, uint8_t *byte);
/* Whether the core waits for an interrupt or event, with SLEEPDEEP. */
bool sleeps_deeply(struct mcu *m);
/* Looks, when that is due, whether the core sleeps deeply, and has the chip stand by then: RAM is
 * lost, time passes, and a reset ends it. */
bool stand_by(struct mcu *m, uint64_t *look, uint64_t ns);
/* All RAM holds something. */
void lose_ram(struct mcu *m);
/* Whether the code that runs is in flash: the core stands still while an operation is under way. */
bool runs_from_flash(struct mcu *m);
/* The flash that the code that runs is in, and where; NULL: it is in RAM. */
const struct flash *flash_of_code(struct mcu *m, uint32_t *offset);

/* flash_lock.c */
enum flash_lock { LOCKED, FIRST_KEY, OPEN, SHUT }; /* SHUT: a wrong key came; until the reset */
void take_flash_key(struct mcu *m, enum flash_lock *lock, uint32_t key);
void take_option_key(struct mcu *m, enum flash_lock *lock, uint32_t key);

/* flash_job.c */
/* Begins an operation; what it programs is in `job->data`. False: the power is cut before it, or
 * the supply was too low in it. When it returns true the operation may have ended already, since
 * the core stood still. */
bool job_begin(struct mcu *m, struct flash_job *job, uint32_t kind, struct flash *flash,
               uint32_t offset, uint32_t length, uint64_t ns);
/* Whether an operation ended now. */
bool job_settle(struct mcu *m, struct flash_job *job);
/* Lets the operation under way end, while the core stands still. */
void job_wait(struct mcu *m, struct flash_job *job);
/* When the operation under way ends; NEVER: there is none. */
uint64_t job_next(const struct flash_job *job);
/* The chip is reset. That of the system does not stop an operation: it ends first. */
void job_reset(struct mcu *m, struct flash_job *job, enum reset_kind kind);
/* The operation under way stands still, as another one, until it goes on. */
void job_suspend(struct mcu *m, struct flash_job *job, struct flash_job *suspended,
                 uint64_t latency_ns);
void job_resume(struct mcu *m, struct flash_job *job, struct flash_job *suspended);
/* Whether it is under way, and for this place of its region. */
bool job_has(const struct flash_job *job, uint32_t offset);
/* The power goes: what is under way is torn. */
void job_tear(struct mcu *m, struct flash_job *job);
bool is_blank(const uint8_t *cells, uint32_t length);

/* flash_words.c: what the controllers of STM32H5 and H7 share. */
#define FLASH_WORD_MAX 32u
/* Stores make up a flash word: its bytes may come in any order and size. */
struct write_buffer {
    uint32_t size;   /* bytes of a flash word */
    uint32_t offset; /* of the one that it is for */
    uint32_t filled; /* a bit for each byte */
    uint8_t data[FLASH_WORD_MAX];
};
enum buffered { BUFFER_TOOK, BUFFER_FULL, BUFFER_ELSEWHERE, BUFFER_TWICE };
enum buffered buffer_take(struct write_buffer *b, uint32_t offset, unsigned size, uint64_t value);
void buffer_clear(struct write_buffer *b); /* what was not written is 0xff */

/* Option words that no address leads to, in a region of their own. A word has its complement
 * behind it. Each has a register that shows it and one that it is programmed from. */
#define OPTION_WORDS_MAX 8u
struct option_word {
    uint32_t current, next; /* offsets of its registers */
    uint32_t mismatch;      /* what it is taken for when its complement does not fit */
};
struct option_words {
    struct flash flash;
    const struct option_word *words;
    uint32_t count, erase_us, program_us;
    uint32_t now[OPTION_WORDS_MAX], next[OPTION_WORDS_MAX];
};
void options_add(struct mcu *m, struct option_words *o, const struct flash_place *place,
                 struct device *controller);
bool options_load(struct mcu *m, struct option_words *o); /* false: a complement does not fit */
/* All are erased and programmed, while the core stands still. */
void options_program(struct mcu *m, struct option_words *o, struct flash_job *job);
/* The word behind a register, and whether that is the one to write; NULL: it is none of them. */
uint32_t *options_find(struct option_words *o, uint32_t offset, bool *writable);
/* A store to the word to write: refused while the option words are locked, unless nothing changes.
 */
void options_write(struct mcu *m, uint32_t *word, uint32_t value, bool locked);
/* The job's data becomes a word of flash with ECC. One that is not blank is programmed all the
 * same: what it then holds is no word any more. */
void program_ecc_word(struct mcu *m, struct flash *flash, struct flash_job *job, uint32_t offset,
                      uint32_t size, uint32_t us);

/* A chip on a bus. Its bus embeds nothing of it, and calls it for what the bus's device is called
 * for. */
struct bus_chip {
    void (*reset)(struct mcu *m, struct bus_chip *c, enum reset_kind kind);
    uint64_t (*next)(const struct bus_chip *c);
    void (*settle)(struct mcu *m, struct bus_chip *c);
    void (*lose_power)(struct mcu *m, struct bus_chip *c);
    /* On I2C: 7 bits. Whether it answers; each byte; whether it acknowledges. */
    uint32_t address;
    bool (*start)(struct mcu *m, struct bus_chip *c, bool reads);
    bool (*take)(struct mcu *m, struct bus_chip *c, uint8_t byte);
    uint8_t (*give)(struct mcu *m, struct bus_chip *c);
    void (*stop)(struct mcu *m, struct bus_chip *c);
    /* On SPI: selected or not; a byte each way. */
    void (*select)(struct mcu *m, struct bus_chip *c, bool selected);
    uint8_t (*exchange)(struct mcu *m, struct bus_chip *c, uint8_t byte);
    /* On an SSI that reads in place: the flash that lies there, and whether its cells are read by
     * this command, or by an address alone: -1. */
    struct flash *flash;
    bool (*gives)(struct mcu *m, struct bus_chip *c, int command);
};

/* bus.c */
#define BUS_CHIPS 4u
struct bus { /* a controller of I2C or SPI embeds it first in its own */
    struct device device;
    struct bus_chip *chips[BUS_CHIPS];
    size_t count;
};
void bus_add(struct bus *b, struct bus_chip *c); /* its memory is the bus's from then on */
void bus_reset(struct mcu *m, struct bus *b, enum reset_kind kind);
uint64_t bus_next(const struct bus *b);
void bus_settle(struct mcu *m, struct bus *b);
void bus_lose_power(struct mcu *m, struct device *d); /* for the device, of which it is all */
void bus_free(struct device *d);

struct bus *i2c_bus(struct device *d);
struct bus *spi_bus(struct device *d);
struct bus *ssi_bus(struct device *d);
/* gpio_stm32.c: the chip is selected while a pin is low. */
void gpio_add_select(struct device *d, uint32_t pin, struct bus_chip *c, struct device *bus);

/* The constructors: one for each model. */
void gpio_stm32_add(struct mcu *m, const struct device_place *place);
void i2c_stm32_add(struct mcu *m, const struct device_place *place);
void spi_stm32_add(struct mcu *m, const struct device_place *place);
void eeprom_i2c_add(struct mcu *m, const struct device_place *place);
void nor_spi_add(struct mcu *m, const struct device_place *place);
void nor_qspi_add(struct mcu *m, const struct device_place *place);
void ssi_rp2040_add(struct mcu *m, const struct device_place *place);
void resets_rp2040_add(struct mcu *m, const struct device_place *place);
void clocks_rp2040_add(struct mcu *m, const struct device_place *place);
void watchdog_rp2040_add(struct mcu *m, const struct device_place *place);
void timer_rp2040_add(struct mcu *m, const struct device_place *place);
void sio_rp2040_add(struct mcu *m, const struct device_place *place);
void nor_cfi_amd_add(struct mcu *m, const struct device_place *place);
void nor_cfi_intel_add(struct mcu *m, const struct device_place *place);
void flash_stm32f1_add(struct mcu *m, const struct device_place *place);
void flash_stm32f4_add(struct mcu *m, const struct device_place *place);
void flash_stm32l4_add(struct mcu *m, const struct device_place *place);
void flash_stm32l4_one_bank_add(struct mcu *m, const struct device_place *place);
void flash_stm32g0_add(struct mcu *m, const struct device_place *place);
void flash_stm32g0_one_bank_add(struct mcu *m, const struct device_place *place);
void flash_stm32h5_add(struct mcu *m, const struct device_place *place);
void flash_stm32h7_add(struct mcu *m, const struct device_place *place);
void flash_nrf_add(struct mcu *m, const struct device_place *place);
void uart_stm32_add(struct mcu *m, const struct device_place *place);
void uart_stm32v2_add(struct mcu *m, const struct device_place *place);
void uart_pl011_add(struct mcu *m, const struct device_place *place);
void uart_nrf_add(struct mcu *m, const struct device_place *place);
void iwdg_stm32_add(struct mcu *m, const struct device_place *place);
void wwdg_stm32_add(struct mcu *m, const struct device_place *place);
void backup_stm32_add(struct mcu *m, const struct device_place *place);
void pwr_stm32_add(struct mcu *m, const struct device_place *place);
void standby_stm32_add(struct mcu *m, const struct device_place *place);
void timer_stm32_add(struct mcu *m, const struct device_place *place);
void power_nrf_add(struct mcu *m, const struct device_place *place);
void rtc_nrf_add(struct mcu *m, const struct device_place *place);
void timer_nrf_add(struct mcu *m, const struct device_place *place);
void ppi_nrf_add(struct mcu *m, const struct device_place *place);
void rng_nrf_add(struct mcu *m, const struct device_place *place);
