/* Assertions for the test programs: the first that fails says where and ends the program. */
#pragma once

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                           \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                        \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

#define CHECK_EQUAL(actual, expected)                                                              \
    do {                                                                                           \
        const long long actual_ = (long long)(actual);                                             \
        const long long expected_ = (long long)(expected);                                         \
        if (actual_ != expected_) {                                                                \
            fprintf(stderr, "%s:%d: %s is %lld (0x%llx), not %lld (0x%llx)\n", __FILE__, __LINE__, \
                    #actual, actual_, (unsigned long long)actual_, expected_,                      \
                    (unsigned long long)expected_);                                                \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

#define CHECK_TEXT(actual, expected)                                                               \
    do {                                                                                           \
        const char *actual_ = (actual);                                                            \
        if (strcmp(actual_, (expected)) != 0) {                                                    \
            fprintf(stderr, "%s:%d: %s is \"%s\", not \"%s\"\n", __FILE__, __LINE__, #actual,      \
                    actual_, (expected));                                                          \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)
