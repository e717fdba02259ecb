#include "app/console_phonebook.h"

#include <stdbool.h>
#include <string.h>

#include "app/release.h"
#include "app/storage.h"
#include "board/say.h"
#include "board/uart.h"
#include "lib/text.h"

static void show_entry(const struct phonebook_entry *entry) {
    say("%3u  %-31s  %s\n", entry->id, entry->name, entry->number);
}

static void add_entry(char *rest) {
    /* The number is the last word; the name before it may have blanks. */
    size_t length = strlen(rest);
    while (length > 0 && rest[length - 1] == ' ') {
        rest[--length] = '\0';
    }
    size_t number = length;
    while (number > 0 && rest[number - 1] != ' ') {
        number--;
    }
    size_t end = number;
    while (end > 0 && rest[end - 1] == ' ') {
        end--;
    }
    if (end == 0) {
        say("type pb add NAME NUMBER\n");
        return;
    }
    rest[end] = '\0';
    int id = phonebook_add(storage_phonebook(), rest, rest + number);
    if (id > 0) {
        say("added %d\n", id);
    } else {
        say("not added, %s: type pb add NAME NUMBER\n", phonebook_error_text(id));
    }
}

static void delete_entry(char *rest) {
    const char *word = text_next_word(&rest);
    uint32_t id;
    if (!word || !text_to_uint(word, UINT16_MAX, &id)) {
        say("type pb del ID, with an ID that pb list shows\n");
        return;
    }
    int error = phonebook_delete(storage_phonebook(), (uint16_t)id);
    if (error) {
        say("not deleted, %s: type pb list to see the IDs\n", phonebook_error_text(error));
    } else {
        say("deleted %u\n", id);
    }
}

#if FEATURE_SORTED_LIST
static bool comes_before(const struct phonebook_entry *a, const struct phonebook_entry *b) {
    int order = strcmp(a->name, b->name);
    return order < 0 || (order == 0 && a->id < b->id);
}

/* The entry that follows `last` in the order of names. Quadratic for a whole list, but without a
   copy of the phonebook in SRAM. */
static bool next_by_name(const struct phonebook_entry *last, struct phonebook_entry *next) {
    const struct phonebook *book = storage_phonebook();
    bool found = false;
    struct phonebook_entry entry;
    for (uint32_t i = 0; phonebook_get(book, i, &entry); i++) {
        if (comes_before(last, &entry) && (!found || comes_before(&entry, next))) {
            *next = entry;
            found = true;
        }
    }
    return found;
}

static void list_entries(void) {
    struct phonebook_entry last = {.id = 0};
    struct phonebook_entry next;
    while (next_by_name(&last, &next)) {
        show_entry(&next);
        uart_poll();
        last = next;
    }
}
#else
static void list_entries(void) {
    struct phonebook_entry entry;
    for (uint32_t i = 0; phonebook_get(storage_phonebook(), i, &entry); i++) {
        show_entry(&entry);
    }
}
#endif

static void show_phonebook(void) {
    const struct phonebook *book = storage_phonebook();
    if (book->error) {
        say("phonebook: %s\n", phonebook_error_text(book->error));
    } else if (book->count == 0) {
        say("the phonebook is empty\n");
    } else {
        list_entries();
    }
}

void console_phonebook(char *rest) {
    const char *action = text_next_word(&rest);
    if (action && strcmp(action, "add") == 0) {
        add_entry(rest);
    } else if (action && strcmp(action, "list") == 0) {
        show_phonebook();
    } else if (action && strcmp(action, "del") == 0) {
        delete_entry(rest);
    } else {
        say("type pb add NAME NUMBER, pb list or pb del ID\n");
    }
}

#if FEATURE_FIND
static char lower(char character) {
    return character >= 'A' && character <= 'Z' ? (char)(character + ('a' - 'A')) : character;
}

static bool begins_with(const char *text, const char *part) {
    while (*part != '\0' && lower(*text) == lower(*part)) {
        text++;
        part++;
    }
    return *part == '\0';
}

static bool contains(const char *text, const char *part) {
    for (; *text != '\0'; text++) {
        if (begins_with(text, part)) {
            return true;
        }
    }
    return false;
}

void console_find(char *rest) {
    if (*rest == '\0') {
        say("type find TEXT, a part of a name in the phonebook\n");
        return;
    }
    bool found = false;
    struct phonebook_entry entry;
    for (uint32_t i = 0; phonebook_get(storage_phonebook(), i, &entry); i++) {
        if (contains(entry.name, rest)) {
            show_entry(&entry);
            found = true;
        }
    }
    if (!found) {
        say("nobody with \"%s\" in the name\n", rest);
    }
}
#endif
