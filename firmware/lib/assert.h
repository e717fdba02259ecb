/* Assertions about the caller: on the host, in tests and fuzzers, the first that fails says where
 * and ends the program. On the terminal they are not there. Never for what comes from outside:
 * that is answered with an error. */
#pragma once

#if __STDC_HOSTED__

#include <stdio.h>
#include <stdlib.h>

#define ASSERT(condition)                                                                          \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);                \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

#else

#define ASSERT(condition) ((void)(0 && (condition))) /* compiled, and left out */

#endif
