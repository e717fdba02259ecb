#include "agent/vectors.h"

#include <stdint.h>

extern const uint32_t agent_vectors[8]; /* agent/start.S */

static uint32_t callers;

static void set_vectors(uint32_t base) {
    __asm__ volatile("mcr p15, 0, %0, c12, c0, 0\n\tisb" ::"r"(base) : "memory");
}

void vectors_enter(void) {
    __asm__ volatile("mrc p15, 0, %0, c12, c0, 0" : "=r"(callers));
    set_vectors((uint32_t)(uintptr_t)agent_vectors);
}

void vectors_leave(void) {
    set_vectors(callers);
}
