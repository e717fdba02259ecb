/* What the application keeps in the NOR, and the agent that writes it. */
#pragma once

#include "lib/journal.h"
#include "lib/phonebook.h"

/* Loads the agent and mounts journal and phonebook. Panics when there is no flash; a journal or a
   phonebook that cannot be used is said in a line on the wire, and stays untouched. */
void storage_start(void);

struct journal *storage_journal(void);
struct phonebook *storage_phonebook(void);
