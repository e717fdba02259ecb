#include "lib/recordlog.h"

#include <string.h>

#include "lib/assert.h"
#include "lib/crc.h"

#define CRC_SIZE 4u
#define HEADER_USED                                                                                \
    20u /* magic, format, generation, payload size, CRC-32; the rest stays blank                   \
         */
#define MAX_SLOT (RECORDLOG_MAX_PAYLOAD + CRC_SIZE)
#define MAX_TRIES 4u /* slots used up for one record before the flash is called broken */

static uint32_t get32(const uint8_t *bytes) {
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

static void put32(uint8_t *bytes, uint32_t value) {
    bytes[0] = (uint8_t)value;
    bytes[1] = (uint8_t)(value >> 8);
    bytes[2] = (uint8_t)(value >> 16);
    bytes[3] = (uint8_t)(value >> 24);
}

static bool is_filled(const uint8_t *bytes, uint32_t length, uint8_t value) {
    for (uint32_t i = 0; i < length; i++) {
        if (bytes[i] != value) {
            return false;
        }
    }
    return true;
}

static const uint8_t *at(const struct recordlog *log, uint32_t offset) {
    return log->flash->base + offset;
}

static uint32_t slot_size(const struct recordlog *log) {
    return log->config.payload_size + CRC_SIZE;
}

static uint32_t half_size(const struct recordlog *log) {
    return log->config.size / 2;
}

static uint32_t other_half(const struct recordlog *log) {
    const uint32_t first = log->config.offset;
    return log->half == first ? first + half_size(log) : first;
}

/* Whether a whole slot fits at `offset` of the half that begins at `half`. */
static bool fits(const struct recordlog *log, uint32_t half, uint32_t offset) {
    return offset - half <= half_size(log) - slot_size(log);
}

static bool is_blank(const struct recordlog *log, uint32_t offset) {
    return is_filled(at(log, offset), slot_size(log), 0xFF);
}

/* Whether a slot begins at `offset` of the half that counts. */
static bool is_slot(const struct recordlog *log, uint32_t offset) {
    const uint32_t first = log->half + RECORDLOG_HEADER_SIZE;
    return log->half != RECORDLOG_NONE && offset >= first && fits(log, log->half, offset) &&
           (offset - first) % slot_size(log) == 0;
}

static bool is_valid(const struct recordlog *log, uint32_t offset) {
    const uint8_t *slot = at(log, offset);
    return get32(slot + log->config.payload_size) == crc32(0, slot, log->config.payload_size);
}

/* ---- Headers ---- */

struct header {
    uint32_t format;
    uint32_t generation;
    uint32_t payload_size;
};

static bool read_header(const struct recordlog *log, uint32_t half, struct header *header) {
    const uint8_t *bytes = at(log, half);
    if (get32(bytes) != log->config.magic || get32(bytes + 16) != crc32(0, bytes, 16)) {
        return false;
    }
    *header = (struct header){get32(bytes + 4), get32(bytes + 8), get32(bytes + 12)};
    return true;
}

/* Programs and reads back; what the flash holds afterwards is what counts. */
static bool write_verified(const struct recordlog *log, uint32_t offset, const uint8_t *data,
                           uint32_t length) {
    ASSERT(length > 0);
    ASSERT(offset >= log->config.offset &&
           offset - log->config.offset <= log->config.size - length);
    (void)log->flash->program(log->flash->ctx, offset, data, length);
    return memcmp(at(log, offset), data, length) == 0;
}

static int write_header(const struct recordlog *log, uint32_t half, uint32_t generation) {
    uint8_t bytes[HEADER_USED];
    put32(bytes, log->config.magic);
    put32(bytes + 4, log->config.format);
    put32(bytes + 8, generation);
    put32(bytes + 12, log->config.payload_size);
    put32(bytes + 16, crc32(0, bytes, 16));
    return write_verified(log, half, bytes, sizeof bytes) ? RECORDLOG_OK : RECORDLOG_WRITE;
}

/* ---- Mounting ---- */

static bool is_power_of_two(uint32_t value) {
    return value != 0 && (value & (value - 1)) == 0;
}

static bool geometry_fits(const struct flash *flash, const struct recordlog_config *config) {
    const uint32_t mask = flash->block_size - 1;
    const uint32_t half = config->size / 2;
    return is_power_of_two(flash->block_size) && (config->offset & mask) == 0 && half != 0 &&
           (half & mask) == 0 && half * 2 == config->size &&
           config->size <= UINT32_MAX - config->offset &&
           config->payload_size <= RECORDLOG_MAX_PAYLOAD &&
           is_power_of_two(config->payload_size + CRC_SIZE) && config->payload_size >= 12 &&
           half >= RECORDLOG_HEADER_SIZE + config->payload_size + CRC_SIZE;
}

static void choose_half(struct recordlog *log, struct header *chosen) {
    const uint32_t halves[2] = {log->config.offset, log->config.offset + half_size(log)};
    for (size_t i = 0; i < 2; i++) {
        struct header header;
        if (!read_header(log, halves[i], &header)) {
            continue;
        }
        /* Serial-number arithmetic: the difference is what counts, not the size. */
        if (log->half == RECORDLOG_NONE ||
            header.generation - chosen->generation - 1 < 0x7FFFFFFF) {
            log->half = halves[i];
            *chosen = header;
        }
    }
}

int recordlog_mount(struct recordlog *log, const struct flash *flash,
                    const struct recordlog_config *config) {
    ASSERT(flash->base != NULL && flash->program != NULL && flash->erase != NULL);
    ASSERT(config->magic != 0xFFFFFFFF); /* blank flash must not be a header */
    *log = (struct recordlog){.flash = flash,
                              .config = *config,
                              .half = RECORDLOG_NONE,
                              .next = RECORDLOG_NONE,
                              .last = RECORDLOG_NONE,
                              .format = config->format};
    if (!geometry_fits(flash, config)) {
        log->error = RECORDLOG_GEOMETRY;
        return log->error;
    }
    struct header header = {0};
    choose_half(log, &header);
    if (log->half == RECORDLOG_NONE) {
        return RECORDLOG_OK;
    }
    log->generation = header.generation;
    log->format = header.format;
    log->next = log->half + RECORDLOG_HEADER_SIZE;
    if (header.format != config->format || header.payload_size != config->payload_size) {
        log->error = RECORDLOG_OTHER_FORMAT;
        return log->error;
    }
    for (; fits(log, log->half, log->next) && !is_blank(log, log->next);
         log->next += slot_size(log)) {
        if (is_valid(log, log->next)) {
            log->last = log->next;
        }
    }
    return RECORDLOG_OK;
}

/* ---- Reading ---- */

uint32_t recordlog_next(const struct recordlog *log, uint32_t offset) {
    if (log->half == RECORDLOG_NONE || log->last == RECORDLOG_NONE) {
        return RECORDLOG_NONE;
    }
    ASSERT(offset == RECORDLOG_NONE || is_slot(log, offset));
    ASSERT(is_slot(log, log->last));
    offset = offset == RECORDLOG_NONE ? log->half + RECORDLOG_HEADER_SIZE : offset + slot_size(log);
    for (; offset <= log->last; offset += slot_size(log)) {
        if (is_valid(log, offset)) {
            return offset;
        }
    }
    return RECORDLOG_NONE;
}

const uint8_t *recordlog_payload(const struct recordlog *log, uint32_t offset) {
    ASSERT(log->error == RECORDLOG_OK);
    ASSERT(is_slot(log, offset));
    return at(log, offset);
}

static uint32_t count_slots(const struct recordlog *log, uint32_t bytes) {
    for (uint32_t size = slot_size(log); size > 1; size /= 2) {
        bytes /= 2; /* slots are powers of two: no division routine is needed */
    }
    return bytes;
}

uint32_t recordlog_slots(const struct recordlog *log) {
    return count_slots(log, half_size(log) - RECORDLOG_HEADER_SIZE);
}

uint32_t recordlog_free(const struct recordlog *log) {
    if (log->half == RECORDLOG_NONE) {
        return recordlog_slots(log);
    }
    ASSERT(log->next - log->half <= half_size(log));
    return count_slots(log, log->half + half_size(log) - log->next);
}

/* ---- Writing ---- */

/* Clears a slot or header for good, so that it cannot be read as a valid or a blank one some other
 * time. Also when it reads as zero: power may have been lost in clearing it. It is invalid already:
 * should the flash refuse, nothing is worse than before. */
static void clear(const struct recordlog *log, uint32_t offset, uint32_t length) {
    ASSERT(length <= MAX_SLOT);
    const uint8_t zeros[MAX_SLOT] = {0}; /* on the stack: what is written must lie in RAM */
    (void)write_verified(log, offset, zeros, length);
}

/* Programs what is there once more. */
static bool write_again(const struct recordlog *log, uint32_t offset, uint32_t length) {
    ASSERT(length <= MAX_SLOT);
    uint8_t bytes[MAX_SLOT];
    memcpy(bytes, at(log, offset), length);
    return write_verified(log, offset, bytes, length);
}

bool recordlog_is_sure(const struct recordlog *log) {
    if (log->error != RECORDLOG_OK || log->half == RECORDLOG_NONE) {
        return true;
    }
    if (log->last == RECORDLOG_NONE) {
        return false;
    }
    ASSERT(is_slot(log, log->last));
    const uint32_t behind = log->last + slot_size(log);
    return log->next == behind + slot_size(log) && is_filled(at(log, behind), slot_size(log), 0);
}

/* Clears the next slot, so that it is used up: nothing that was begun there counts. */
static bool use_up_next(struct recordlog *log) {
    const uint32_t size = slot_size(log);
    if (fits(log, log->half, log->next)) {
        clear(log, log->next, size);
        if (is_blank(log, log->next)) {
            return false;
        }
        log->next += size;
    }
    return true;
}

int recordlog_affirm(struct recordlog *log) {
    if (log->error != RECORDLOG_OK) {
        return log->error;
    }
    if (log->affirmed || log->half == RECORDLOG_NONE) {
        log->affirmed = true;
        return RECORDLOG_OK;
    }
    const uint32_t size = slot_size(log);
    if (!write_again(log, log->half, HEADER_USED) ||
        (log->last != RECORDLOG_NONE &&
         (!write_again(log, log->last, size) || !is_valid(log, log->last)))) {
        return RECORDLOG_WRITE;
    }
    /* The header of a compaction that was interrupted must not begin to count later. */
    const uint32_t other = other_half(log);
    struct header header;
    if (!is_filled(at(log, other), HEADER_USED, 0xFF) && !read_header(log, other, &header)) {
        clear(log, other, HEADER_USED);
    }
    uint32_t torn =
        log->last != RECORDLOG_NONE ? log->last + size : log->half + RECORDLOG_HEADER_SIZE;
    for (; torn < log->next; torn += size) {
        clear(log, torn, size);
    }
    if (!use_up_next(log)) {
        return RECORDLOG_WRITE;
    }
    log->affirmed = true;
    return RECORDLOG_OK;
}

/* Writes a slot at `*next` of `half`, or at one of the next ones when the flash does not take it.
 * Moves `*next` behind what was used; `*written` is where it went. */
static int write_slot(const struct recordlog *log, uint32_t half, uint32_t *next,
                      const uint8_t *slot, uint32_t *written) {
    ASSERT(*next >= half + RECORDLOG_HEADER_SIZE);
    ASSERT((*next - half - RECORDLOG_HEADER_SIZE) % slot_size(log) == 0);
    for (uint32_t tries = 0; tries < MAX_TRIES; tries++) {
        if (!fits(log, half, *next)) {
            return RECORDLOG_FULL;
        }
        const uint32_t offset = *next;
        const bool good = write_verified(log, offset, slot, slot_size(log));
        if (!good && is_blank(log, offset)) {
            return RECORDLOG_WRITE; /* a record behind a blank slot would never be found */
        }
        *next += slot_size(log);
        if (good) {
            *written = offset;
            return RECORDLOG_OK;
        }
    }
    return RECORDLOG_WRITE;
}

static int erase_half(const struct recordlog *log, uint32_t half) {
    ASSERT(half != log->half);
    ASSERT(half == log->config.offset || half == log->config.offset + half_size(log));
    for (uint32_t done = 0; done < half_size(log); done += log->flash->block_size) {
        if (log->flash->erase(log->flash->ctx, half + done) != 0) {
            return RECORDLOG_WRITE;
        }
    }
    return RECORDLOG_OK;
}

int recordlog_compact(struct recordlog *log, recordlog_keep_fn *keep, void *ctx) {
    int error = recordlog_affirm(log);
    if (error != RECORDLOG_OK) {
        return error;
    }
    const uint32_t target = other_half(log);
    uint32_t next = target + RECORDLOG_HEADER_SIZE;
    uint32_t last = RECORDLOG_NONE;
    error = erase_half(log, target);
    for (uint32_t offset = recordlog_next(log, RECORDLOG_NONE);
         offset != RECORDLOG_NONE && error == RECORDLOG_OK; offset = recordlog_next(log, offset)) {
        if (keep != NULL && keep(ctx, log, offset)) {
            uint8_t slot[MAX_SLOT];
            memcpy(slot, at(log, offset), slot_size(log));
            error = write_slot(log, target, &next, slot, &last);
        }
    }
    if (error == RECORDLOG_OK) {
        error = write_header(log, target, log->generation + 1);
    }
    if (error == RECORDLOG_OK) {
        log->generation++;
        log->half = target;
        log->next = next;
        log->last = last;
    }
    return error;
}

int recordlog_drop_older(struct recordlog *log) {
    if (log->error != RECORDLOG_OK || log->half == RECORDLOG_NONE) {
        return log->error;
    }
    const uint32_t other = other_half(log);
    struct header header;
    if (is_filled(at(log, other), HEADER_USED, 0xFF)) {
        return RECORDLOG_OK;
    }
    clear(log, other, HEADER_USED);
    return read_header(log, other, &header) ? RECORDLOG_WRITE : RECORDLOG_OK;
}

int recordlog_append(struct recordlog *log, const void *payload) {
    uint8_t slot[MAX_SLOT];
    if (log->error != RECORDLOG_OK) {
        return log->error;
    }
    ASSERT(payload != NULL);
    ASSERT(log->flash != NULL); /* it was mounted */
    memcpy(slot, payload, log->config.payload_size);
    put32(slot + log->config.payload_size, crc32(0, payload, log->config.payload_size));
    if (is_filled(slot, slot_size(log), 0xFF)) {
        return RECORDLOG_PAYLOAD;
    }
    int error =
        log->half == RECORDLOG_NONE ? recordlog_compact(log, NULL, NULL) : recordlog_affirm(log);
    if (error == RECORDLOG_OK) {
        error = write_slot(log, log->half, &log->next, slot, &log->last);
    }
    return error;
}

int recordlog_seal(struct recordlog *log) {
    ASSERT(log->affirmed); /* something was appended */
    ASSERT(log->last != RECORDLOG_NONE);
    log->affirmed = false; /* the next record has more than one cleared slot in front of it */
    return use_up_next(log) ? RECORDLOG_OK : RECORDLOG_WRITE;
}

int recordlog_format(struct recordlog *log, const struct flash *flash,
                     const struct recordlog_config *config) {
    int error = recordlog_mount(log, flash, config);
    if (error == RECORDLOG_OTHER_FORMAT) {
        /* Its header counts until the new one does; its records mean nothing here. */
        log->error = RECORDLOG_OK;
        log->last = RECORDLOG_NONE;
        log->affirmed = true;
        error = RECORDLOG_OK;
    }
    if (error == RECORDLOG_OK) {
        error = recordlog_compact(log, NULL, NULL);
    }
    if (error == RECORDLOG_OK) {
        error = erase_half(log, other_half(log));
    }
    log->format = config->format;
    log->error = error;
    return error;
}

const char *recordlog_error_text(int error) {
    switch (error) {
    case RECORDLOG_OK:
        return "no error";
    case RECORDLOG_FULL:
        return "no room";
    case RECORDLOG_GEOMETRY:
        return "the partition does not fit the flash";
    case RECORDLOG_OTHER_FORMAT:
        return "written by other software";
    case RECORDLOG_WRITE:
        return "the flash does not take what is written";
    case RECORDLOG_PAYLOAD:
        return "a record that looks blank";
    default:
        return "unknown error";
    }
}
