/* The user's phonebook: entries with a number, a name and an ID, kept in a record log. Entries are
 * read from the NOR; RAM holds one offset for each.
 *
 * There are two formats of the records, told apart by the log's header: 1 has the name first, 2 the
 * number. Software knows one of them; what is kept in the other one it leaves alone. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "lib/recordlog.h"

#define PHONEBOOK_MAX_NAME 31u   /* bytes of UTF-8 */
#define PHONEBOOK_MAX_NUMBER 23u /* of 0-9 + * # */

enum phonebook_error {
    PHONEBOOK_OK = 0,
    PHONEBOOK_BAD_NAME = -40,   /* empty, too long, not UTF-8, or with control characters */
    PHONEBOOK_BAD_NUMBER = -41, /* empty, too long, or other characters */
    PHONEBOOK_NO_ENTRY = -42,   /* no entry has this ID */
    PHONEBOOK_NO_ROOM = -43,    /* as many entries as there can be */
    /* and the errors of recordlog.h */
};

struct phonebook_entry {
    uint16_t id; /* 1 or more */
    char name[PHONEBOOK_MAX_NAME + 1];
    char number[PHONEBOOK_MAX_NUMBER + 1];
};

enum phonebook_format { PHONEBOOK_NAME_FIRST = 1, PHONEBOOK_NUMBER_FIRST = 2 };

struct phonebook {
    struct recordlog log;
    uint32_t *index; /* offsets of the live entries' records, oldest first */
    uint32_t capacity;
    uint32_t count;
    int error; /* of mounting: while it is not 0 nothing is written */
};

/* `index` has room for `capacity` entries and belongs to the phonebook from now on. Writes nothing.
 * Returns 0 or a recordlog_error; the phonebook is then empty and cannot be written. */
int phonebook_mount(struct phonebook *book, const struct flash *flash, uint32_t offset,
                    uint32_t size, enum phonebook_format format, uint32_t *index,
                    uint32_t capacity);

/* Returns the new entry's ID (positive: the smallest that is free) or an error. The same name and
 * number twice are allowed. */
int phonebook_add(struct phonebook *book, const char *name, const char *number);

/* As phonebook_add, for an entry that was in a phonebook before: it keeps its ID when that is free.
 */
int phonebook_put(struct phonebook *book, const struct phonebook_entry *entry);

/* Whether there can be such an entry. */
bool phonebook_is_entry(const struct phonebook_entry *entry);

/* How many entries have the name and the number of this one. */
uint32_t phonebook_count(const struct phonebook *book, const struct phonebook_entry *entry);

int phonebook_delete(struct phonebook *book, uint16_t id);

/* Writes all entries anew, into the other half: then they are there for sure, however weak the
 * cells are that they were read from. */
int phonebook_rebuild(struct phonebook *book);

/* The entry at `position`, 0 to count - 1, in the order they were added. False: there is none. */
bool phonebook_get(const struct phonebook *book, uint32_t position, struct phonebook_entry *entry);

bool phonebook_find(const struct phonebook *book, uint16_t id, struct phonebook_entry *entry);

/* One line for a person, also for the errors of recordlog.h. */
const char *phonebook_error_text(int error);
