#include "app/storage.h"

#include "agent/agent.h"
#include "app/panic.h"
#include "app/prompt.h"
#include "app/release.h"
#include "board/nor.h"
#include "board_map.h"

#define PHONEBOOK_CAPACITY 200u

static struct flash flash;
static struct journal journal;
static struct phonebook phonebook;
static uint32_t phonebook_index[PHONEBOOK_CAPACITY];

void storage_start(void) {
    int error = nor_init(&flash);
    if (error != AGENT_OK) {
        panic("no flash chips that the agent knows, error %d", error);
    }
    error = journal_mount(&journal, &flash, BOARD_JOURNAL_OFFSET, BOARD_JOURNAL_SIZE);
    if (error) {
        console_say("journal: %s", recordlog_error_text(error));
    }
    error = phonebook_mount(&phonebook, &flash, BOARD_USERDATA_OFFSET, BOARD_USERDATA_SIZE,
                            USERDATA_FORMAT, phonebook_index, PHONEBOOK_CAPACITY);
    if (error) {
        console_say("phonebook: %s", phonebook_error_text(error));
    }
}

struct journal *storage_journal(void) {
    return &journal;
}

struct phonebook *storage_phonebook(void) {
    return &phonebook;
}
