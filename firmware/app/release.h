/* What may differ between releases. The build gives these macros; the defaults are release 1.0.0.
 */
#pragma once

/* The console's `find TEXT`: phonebook entries whose name contains TEXT. */
#ifndef FEATURE_FIND
#define FEATURE_FIND 0
#endif

/* `pb list` sorted by name instead of by age. */
#ifndef FEATURE_SORTED_LIST
#define FEATURE_SORTED_LIST 0
#endif

/* `mem` ends with a line of totals. */
#ifndef FEATURE_MEMORY_SUMMARY
#define FEATURE_MEMORY_SUMMARY 0
#endif

/* Memory that the tasks hold, in KiB. */
#ifndef BROWSER_KIB
#define BROWSER_KIB 640
#endif
#ifndef MEDIA_KIB
#define MEDIA_KIB 512
#endif

/* The format of the phonebook in the NOR (enum phonebook_format). */
#ifndef USERDATA_FORMAT
#define USERDATA_FORMAT 1
#endif

/* Bytes of generated constant data after the code (a multiple of 4), and what it is generated from:
   tests make images of several NOR blocks with it. */
#ifndef RESOURCE_BYTES
#define RESOURCE_BYTES 0
#endif
#ifndef RESOURCE_SEED
#define RESOURCE_SEED 1
#endif
