/* What littlefs uses of <string.h> beyond that of the firmware. */
#pragma once

#include_next <string.h>

char *strcpy(char *to, const char *from);
size_t strspn(const char *text, const char *accepted);
size_t strcspn(const char *text, const char *rejected);
