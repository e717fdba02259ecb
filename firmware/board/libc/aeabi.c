/* What the compiler calls by itself on this CPU, which cannot divide (Arm IHI 0043, run-time ABI,
 * chapter 5). Compiled with -fno-builtin. */
#include <stdint.h>
#include <string.h>

void __aeabi_memcpy(void *to, const void *from, size_t length);
void __aeabi_memcpy4(void *to, const void *from, size_t length);
void __aeabi_memcpy8(void *to, const void *from, size_t length);
void __aeabi_memmove(void *to, const void *from, size_t length);
void __aeabi_memmove4(void *to, const void *from, size_t length);
void __aeabi_memmove8(void *to, const void *from, size_t length);
void __aeabi_memset(void *to, size_t length, int value);
void __aeabi_memset4(void *to, size_t length, int value);
void __aeabi_memset8(void *to, size_t length, int value);
void __aeabi_memclr(void *to, size_t length);
void __aeabi_memclr4(void *to, size_t length);
void __aeabi_memclr8(void *to, size_t length);
uint32_t __aeabi_uidiv(uint32_t n, uint32_t d);
uint64_t __aeabi_uidivmod(uint32_t n, uint32_t d);
int32_t __aeabi_idiv(int32_t n, int32_t d);
uint64_t __aeabi_idivmod(int32_t n, int32_t d);
uint64_t aeabi_divide(uint64_t n, uint64_t d, uint64_t *rest);

void __aeabi_memcpy(void *to, const void *from, size_t length) {
    memcpy(to, from, length);
}

void __aeabi_memcpy4(void *to, const void *from, size_t length) {
    memcpy(to, from, length);
}

void __aeabi_memcpy8(void *to, const void *from, size_t length) {
    memcpy(to, from, length);
}

void __aeabi_memmove(void *to, const void *from, size_t length) {
    memmove(to, from, length);
}

void __aeabi_memmove4(void *to, const void *from, size_t length) {
    memmove(to, from, length);
}

void __aeabi_memmove8(void *to, const void *from, size_t length) {
    memmove(to, from, length);
}

void __aeabi_memset(void *to, size_t length, int value) {
    memset(to, value, length);
}

void __aeabi_memset4(void *to, size_t length, int value) {
    memset(to, value, length);
}

void __aeabi_memset8(void *to, size_t length, int value) {
    memset(to, value, length);
}

void __aeabi_memclr(void *to, size_t length) {
    memset(to, 0, length);
}

void __aeabi_memclr4(void *to, size_t length) {
    memset(to, 0, length);
}

void __aeabi_memclr8(void *to, size_t length) {
    memset(to, 0, length);
}

/* Quotient, and the remainder in the upper word: as the ABI wants it in r0 and r1. A division by
 * zero gives zero. */
uint64_t __aeabi_uidivmod(uint32_t n, uint32_t d) {
    uint32_t quotient = 0;
    if (d != 0 && n >= d) {
        for (int shift = __builtin_clz(d) - __builtin_clz(n); shift >= 0; shift--) {
            if (n >> shift >= d) {
                n -= d << shift;
                quotient |= 1u << shift;
            }
        }
    }
    return (uint64_t)n << 32 | quotient;
}

uint32_t __aeabi_uidiv(uint32_t n, uint32_t d) {
    return (uint32_t)__aeabi_uidivmod(n, d);
}

uint64_t __aeabi_idivmod(int32_t n, int32_t d) {
    const uint64_t both = __aeabi_uidivmod(n < 0 ? 0u - (uint32_t)n : (uint32_t)n,
                                           d < 0 ? 0u - (uint32_t)d : (uint32_t)d);
    uint32_t quotient = (uint32_t)both;
    uint32_t rest = (uint32_t)(both >> 32);
    if ((n < 0) != (d < 0)) {
        quotient = 0u - quotient;
    }
    if (n < 0) {
        rest = 0u - rest;
    }
    return (uint64_t)rest << 32 | quotient;
}

int32_t __aeabi_idiv(int32_t n, int32_t d) {
    return (int32_t)(uint32_t)__aeabi_idivmod(n, d);
}

/* For __aeabi_uldivmod in division.S. */
uint64_t aeabi_divide(uint64_t n, uint64_t d, uint64_t *rest) {
    uint64_t quotient = 0;
    if (d != 0 && n >= d) {
        for (int shift = __builtin_clzll(d) - __builtin_clzll(n); shift >= 0; shift--) {
            if (n >> shift >= d) {
                n -= d << shift;
                quotient |= 1ull << shift;
            }
        }
    }
    *rest = n;
    return quotient;
}
