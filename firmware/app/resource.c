#include "app/resource.h"

#include <stddef.h>

#include "app/release.h"

#if RESOURCE_BYTES
/* The assembler computes the table (the sequence of a linear congruential generator): no generated
   file, and any size at no cost in the source. */
#define TEXT_OF(value) #value
#define TEXT(value) TEXT_OF(value)
__asm__(".section .resource,\"a\",%progbits\n"
        ".balign 4\n"
        ".local resource_table\n"
        "resource_table:\n"
        ".set resource_word, " TEXT(
            RESOURCE_SEED) "\n"
                           ".rept " TEXT(RESOURCE_BYTES) " / 4\n"
                                                         ".set resource_word, (resource_word * "
                                                         "1664525 + 1013904223) & 0xffffffff\n"
                                                         ".long resource_word\n"
                                                         ".endr\n"
                                                         ".previous\n");
extern const uint8_t resource_table[];

const uint8_t *resource_data(void) {
    return resource_table;
}
#else
const uint8_t *resource_data(void) {
    return NULL;
}
#endif

uint32_t resource_size(void) {
    return RESOURCE_BYTES / 4 * 4;
}
