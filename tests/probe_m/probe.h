/* What the checks of the probe have at hand: it runs on each Cortex-M, and says what it sees by
 * semihosting. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define REGISTER(address) (*(volatile uint32_t *)(address))
#define BYTE(address) (*(volatile uint8_t *)(address))

#define SYST_CSR REGISTER(0xe000e010)
#define SYST_RVR REGISTER(0xe000e014)
#define SYST_CVR REGISTER(0xe000e018)
#define NVIC_ISER REGISTER(0xe000e100)
#define NVIC_ICER REGISTER(0xe000e180)
#define NVIC_ISPR REGISTER(0xe000e200)
#define NVIC_ICPR REGISTER(0xe000e280)
#define NVIC_IABR REGISTER(0xe000e300)
#define NVIC_IPR(n) REGISTER(0xe000e400 + ((n) & ~3u))
#define CPUID REGISTER(0xe000ed00)
#define ICSR REGISTER(0xe000ed04)
#define VTOR REGISTER(0xe000ed08)
#define AIRCR REGISTER(0xe000ed0c)
#define SCR REGISTER(0xe000ed10)
#define CCR REGISTER(0xe000ed14)
#define SHPR2 REGISTER(0xe000ed1c)
#define SHPR3 REGISTER(0xe000ed20)
#define SHCSR REGISTER(0xe000ed24)
#define CFSR REGISTER(0xe000ed28)
#define HFSR REGISTER(0xe000ed2c)
#define MMFAR REGISTER(0xe000ed34)
#define BFAR REGISTER(0xe000ed38)
#define CPACR REGISTER(0xe000ed88)
#define MPU_CTRL REGISTER(0xe000ed94)
#define MPU_RNR REGISTER(0xe000ed98)
#define MPU_RBAR REGISTER(0xe000ed9c)
#define MPU_RASR REGISTER(0xe000eda0) /* RLAR in Armv8-M */
#define STIR REGISTER(0xe000ef00)
#define FPCCR REGISTER(0xe000ef34)

enum { NMI = 2, HARD_FAULT, MEMORY_FAULT, BUS_FAULT, USAGE_FAULT };
enum { SVC = 11, PENDSV = 14, SYSTICK, INTERRUPT_0 };

/* What an exception puts on the stack. */
struct frame {
    uint32_t r0, r1, r2, r3, r12, lr, pc, xpsr;
};

typedef void handler(struct frame *frame, uint32_t exc_return);

/* What an exception does; NULL: it is told, and the program ends. */
extern handler *volatile handlers[64];

void say(const char *text);
/* A text in which each % is the next number, as hexadecimal digits. */
void tell(const char *text, ...);
void quit(void);

static inline void barrier(void) {
    __asm__ volatile("dsb\n\tisb" ::: "memory");
}

/* The checks, in the order in which they run. */
void check_calls(void);
void check_priorities(void);
void check_masks(void);
void check_stacks(void);
void check_systick(void);
void check_waiting(void);
void check_faults(void);
void check_mpu(void);
void check_fpu(void);
void check_bits(void);
void check_vectors(void);
void check_reset(void);
