/* The console's commands for the phonebook: `rest` is what follows the command's name. */
#pragma once

/* pb add NAME NUMBER, pb list, pb del ID */
void console_phonebook(char *rest);

/* find TEXT; there is such a command only with FEATURE_FIND. */
void console_find(char *rest);
