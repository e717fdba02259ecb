#include "update.h"

#include <string.h>

#include "layout.h"
#include "lib/crc.h"
#include "lib/delta.h"
#include "sha256.h"

#define RECORD_MAGIC 0x4F444552u

/* Says that the log is whole, and what is to be done with it. While there is a record, its log is
 * copied over the application, at every start. */
struct record {
    uint32_t length;                   /* of the new image, bytes */
    uint8_t digest[DELTA_SHA256_SIZE]; /* of the new image */
    uint32_t count;
    uint32_t pages[LOG_PAGES]; /* of the application, which those of the log replace */
    uint32_t crc;              /* CRC-32 of what is before it */
    uint32_t magic;            /* comes last */
};

static _Alignas(8) uint8_t memory[DELTA_MAX_MEMORY];
static _Alignas(4) uint8_t image[APP_SIZE]; /* the new one */

static const void *at(uint32_t address) {
    return (const void *)(uintptr_t)address;
}

static bool is_same(uint32_t address, const void *bytes, uint32_t size) {
    return memcmp(at(address), bytes, size) == 0;
}

/* Blank words are left out: one that is programmed need not be blank the next time. */
static bool write_words(uint32_t to, const void *from, uint32_t size) {
    const uint32_t *const words = from;
    for (uint32_t i = 0; i < size / 4; i++) {
        if (words[i] != UINT32_MAX) {
            flash_program(to + 4 * i, &words[i], 4);
        }
    }
    return is_same(to, from, size);
}

static bool write_page(uint32_t to, const void *from) {
    flash_erase(to);
    return write_words(to, from, FLASH_PAGE_SIZE);
}

/* ---- The record ---- */

static uint32_t crc_of(const struct record *record) {
    return crc32(0, record, offsetof(struct record, crc));
}

static bool read_record(struct record *record) {
    const struct record *const written = at(RECORD);
    if (written->magic != RECORD_MAGIC) {
        return false;
    }
    *record = *written;
    return record->crc == crc_of(record);
}

/* Also for one that was read: the power may have been cut when it was written. Then it reads well
 * now, and otherwise another time, when half of the application is new. */
static bool write_record(const struct record *record) {
    return write_words(RECORD, record, sizeof *record);
}

/* ---- After the record: the log is copied, as often as it takes ---- */

/* All of its pages: one that reads as it should may have been written when the power was cut. */
static bool copy_log(const struct record *record) {
    for (uint32_t i = 0; i < record->count; i++) {
        if (!write_page(APP + record->pages[i] * FLASH_PAGE_SIZE, at(LOG + i * FLASH_PAGE_SIZE))) {
            return false;
        }
    }
    return true;
}

static bool finish(const struct record *record) {
    uint8_t digest[DELTA_SHA256_SIZE];
    if (!copy_log(record)) {
        return false;
    }
    sha256(digest, at(APP), record->length);
    if (memcmp(digest, record->digest, sizeof digest) != 0) {
        return false;
    }
    flash_erase(RECORD);
    return true;
}

/* ---- Before it: the application stays as it is ---- */

static bool is_staged(const struct staged *staged) {
    return staged->magic == STAGED_MAGIC && staged->length <= STAGED_SIZE &&
           staged->crc == crc32(0, staged->file, staged->length);
}

/* Into the RAM. Says how many bytes the new image has, or why there is none. */
static int decode(const struct staged *staged, uint32_t *length) {
    const struct delta_job job = {.base = at(APP),
                                  .base_size = APP_SIZE,
                                  .image = image,
                                  .image_size = sizeof image,
                                  .memory = memory,
                                  .memory_size = sizeof memory,
                                  .sha256 = sha256};
    struct delta_header header;
    int error = delta_parse_header(&header, staged->file, staged->length);
    memset(image, 0xFF, sizeof image);
    struct delta *const delta = error == DELTA_OK ? delta_begin(&job, &header, &error) : NULL;
    if (delta == NULL) {
        return error;
    }
    delta_feed(delta, staged->file + header.size, staged->length - header.size);
    error = delta_finish(delta);
    *length = delta_rebuilt(delta);
    return error;
}

/* Which pages differ; the record has room for LOG_PAGES of them. */
static void find_changes(struct record *record) {
    for (uint32_t page = 0; page * FLASH_PAGE_SIZE < record->length; page++) {
        const uint32_t offset = page * FLASH_PAGE_SIZE;
        if (!is_same(APP + offset, image + offset, FLASH_PAGE_SIZE)) {
            if (record->count < LOG_PAGES) {
                record->pages[record->count] = page;
            }
            record->count++;
        }
    }
}

/* The old record goes first: read once more, it would have half a log copied. */
static bool write_log(const struct record *record) {
    flash_erase(RECORD);
    for (uint32_t i = 0; i < record->count; i++) {
        const uint32_t from = record->pages[i] * FLASH_PAGE_SIZE;
        if (!write_page(LOG + i * FLASH_PAGE_SIZE, image + from)) {
            return false;
        }
    }
    return true;
}

static void refuse(const char *why) {
    print("boot: the update is refused: ");
    print(why);
    print("\r\n");
}

static void refuse_for_room(uint32_t count) {
    char text[] = "the log has 00 pages, it takes 00";
    text[12] = '0' + LOG_PAGES / 10;
    text[13] = '0' + LOG_PAGES % 10;
    text[31] = (char)('0' + count / 10);
    text[32] = (char)('0' + count % 10);
    refuse(text);
}

static bool begin(const struct staged *staged) {
    struct record record = {.magic = RECORD_MAGIC};
    const int error = decode(staged, &record.length);
    if (error != DELTA_OK) {
        refuse(delta_error_text(error));
        return true;
    }
    /* Here belongs what your bootloader asks of an image: its signature, its version. */
    find_changes(&record);
    if (record.count > LOG_PAGES) {
        refuse_for_room(record.count);
        return true;
    }
    sha256(record.digest, image, record.length);
    record.crc = crc_of(&record);
    if (!write_log(&record) || !write_record(&record)) {
        refuse("the flash does not take the log");
        return true;
    }
    return finish(&record);
}

/* What was done, or refused, is not tried again. */
static void drop(const struct staged *staged) {
    const uint32_t dropped = 0;
    flash_program((uint32_t)(uintptr_t)&staged->magic, &dropped, sizeof dropped);
}

bool update_apply(void) {
    const struct staged *const staged = at(STAGED);
    struct record record;
    if (read_record(&record) && !(write_record(&record) && finish(&record))) {
        return false;
    }
    if (is_staged(staged)) {
        if (!begin(staged)) {
            return false;
        }
        drop(staged);
    }
    return true;
}
