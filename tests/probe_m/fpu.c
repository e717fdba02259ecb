/* The FPU: switched off, and its registers on the stack. */
#include "probe.h"

#if defined(HAS_FPU)

static volatile uint32_t skip;

static void on_fault(struct frame *frame, uint32_t exc_return) {
    (void)exc_return;
    tell("off: cfsr %", CFSR);
    CFSR = CFSR;
    frame->pc += skip;
}

static uint32_t control(void) {
    uint32_t value;
    __asm__ volatile("mrs %0, control" : "=r"(value));
    return value & 7;
}

static void on_call(struct frame *frame, uint32_t exc_return) {
    uint32_t *words = (uint32_t *)frame;
    uint32_t inside = control(), pending = FPCCR & 1, at = *(volatile uint32_t *)0xe000ef38;
    /* The first use here puts the registers there. */
    __asm__ volatile(".fpu vfpv4\n\tvmov s0, %0\n\tvmov s15, %0\n\tvmov s16, %0" : : "r"(0x1234));
    tell("fpu in use: frame by %, control %, lazy % at %, then % %", exc_return >> 1 & 15, inside,
         pending, at - (uint32_t)frame, FPCCR & 1, control());
    tell("words % % %", words[8], words[8 + 15], words[8 + 16]);
}

static void on_plain_call(struct frame *frame, uint32_t exc_return) {
    (void)frame;
    tell("not in use: frame by %, control %", exc_return >> 1 & 15, control());
}

void check_fpu(void) {
    uint32_t s0, s15, s16, status;
    handlers[HARD_FAULT] = handlers[USAGE_FAULT] = on_fault;
    SHCSR = 4u << 16;
    CPACR = 0;
    barrier();
    skip = 4;
    __asm__ volatile(".fpu vfpv4\n\tvmov s0, %0" : : "r"(1));
    __asm__ volatile("nop\n\tadds r0, r0, #0\n\t.fpu vfpv4\n\tvadd.f32 s0, s0, s0"
                     :
                     :
                     : "r0", "cc");
    CPACR = 0xf << 20;
    barrier();
    handlers[SVC] = on_plain_call;
    __asm__ volatile("svc 0" : : : "memory");
    __asm__ volatile(".fpu vfpv4\n\t"
                     "vmov s0, %0\n\tvmov s15, %1\n\tvmov s16, %2\n\tvmsr fpscr, %3"
                     :
                     : "r"(0x11), "r"(0x22), "r"(0x33), "r"(0x01000000));
    handlers[SVC] = on_call;
    __asm__ volatile("svc 0" : : : "memory");
    __asm__ volatile(".fpu vfpv4\n\tvmov %0, s0\n\tvmov %1, s15\n\tvmov %2, s16\n\tvmrs %3, fpscr"
                     : "=r"(s0), "=r"(s15), "=r"(s16), "=r"(status));
    tell("after: % % % %, control %", s0, s15, s16, status, control());
    SHCSR = 0;
    /* The thread goes on without the FPU. */
    __asm__ volatile("msr control, %0\n\tisb" : : "r"(0));
    handlers[SVC] = on_plain_call;
    __asm__ volatile("svc 0" : : : "memory");
}
#else
void check_fpu(void) {}
#endif
