/* The memory protection unit. */
#include "probe.h"

#if __ARM_ARCH >= 7

static uint8_t room[2048] __attribute__((aligned(1024)));
static volatile uint32_t skip;

static void on_fault(struct frame *frame, uint32_t exc_return) {
    uint32_t exception;
    (void)exc_return;
    __asm__ volatile("mrs %0, ipsr" : "=r"(exception));
    uint32_t address = CFSR & 0x80 ? MMFAR - (uint32_t)room : 0;
    tell("  exception %: cfsr %, of %", exception, CFSR, address);
    CFSR = CFSR;
    frame->pc += skip;
}

static void on_jump(struct frame *frame, uint32_t exc_return) {
    skip = 0;
    on_fault(frame, exc_return);
    frame->pc = frame->lr & ~1u;
}

static void on_call(struct frame *frame, uint32_t exc_return) {
    (void)frame;
    (void)exc_return;
    __asm__ volatile("msr control, %0\n\tisb" : : "r"(0));
}

static uint32_t load(uint32_t offset) {
    register uint32_t r0 __asm__("r0") = (uint32_t)room + offset;
    __asm__ volatile("ldr r0, [r0]\n\tnop" : "+r"(r0) : : "memory");
    return r0 - (uint32_t)room == offset ? 0xbad : r0;
}

static void store(uint32_t offset, uint32_t value) {
    register uint32_t r0 __asm__("r0") = (uint32_t)room + offset;
    register uint32_t r1 __asm__("r1") = value;
    __asm__ volatile("str r1, [r0]\n\tnop" : : "r"(r0), "r"(r1) : "memory");
}

static void call(uint32_t offset) {
    register uint32_t r0 __asm__("r0") = ((uint32_t)room + offset) | 1;
    __asm__ volatile("blx r0" : : "r"(r0) : "lr", "memory");
}

/* A region; what it allows is said in the words of Armv7-M. */
static void set_region(uint32_t number, uint32_t offset, uint32_t log2, uint32_t access,
                       bool never) {
    uint32_t base = (uint32_t)room + offset;
    MPU_RNR = number;
#if __ARM_ARCH >= 8
    uint32_t read_only = access >= 5, any = access == 3 || access == 6;
    MPU_RBAR = base | read_only << 2 | any << 1 | never;
    MPU_RASR = ((base + (1u << log2) - 1) & ~31u) | 1;
#else
    MPU_RBAR = base;
    MPU_RASR = (uint32_t)never << 28 | access << 24 | 1 << 18 | (log2 - 1) << 1 | 1;
#endif
}

static void as_user(uint32_t offset, uint32_t value) {
    __asm__ volatile("msr control, %0\n\tisb" : : "r"(1));
    uint32_t old = load(offset);
    store(offset, value);
    __asm__ volatile("svc 0" : : : "memory");
    tell(" user at %: % and %", offset, old, load(offset));
}

void check_mpu(void) {
    handlers[SVC] = on_call;
    handlers[MEMORY_FAULT] = handlers[HARD_FAULT] = on_fault;
    SHCSR = 1u << 16;
    skip = 2;
    for (uint32_t at = 0; at < 1024; at += 4) {
        *(volatile uint32_t *)(room + at) = at % 64 ? 0x46c04770 : 0xbf004770; /* bx lr */
    }
    barrier();
    call(0);
    tell("mpu: regions %", REGISTER(0xe000ed90) >> 8 & 0xff);
    /* read only, nothing for users, everything, never executed, everything with a hole */
    set_region(0, 0x000, 7, 6, false);
    set_region(1, 0x080, 7, 1, false);
    set_region(2, 0x100, 7, 3, false);
    set_region(3, 0x180, 7, 3, true);
#if __ARM_ARCH < 8
    set_region(4, 0x200, 8, 3, false);
    set_region(5, 0x200, 8, 6, false); /* over it, where its parts are */
    MPU_RASR |= 0xf0 << 8;             /* its first half only */
    set_region(6, 0x400, 10, 0, false);
#endif
    MPU_CTRL = 5; /* what no region says is as ever, for the privileged */
    barrier();
    tell("read only: %", load(0x10));
    store(0x10, 1);
    tell("and still %", load(0x10));
    store(0x90, 2);
    tell("privileged: %", load(0x90));
    store(0x110, 3);
    tell("all: %", load(0x110));
    say("call what may be\n");
    call(0x100);
    handlers[MEMORY_FAULT] = on_jump;
    say("call what may not\n");
    call(0x180);
    handlers[MEMORY_FAULT] = on_fault;
    skip = 2;
    store(0x190, 4);
    tell("data: %", load(0x190));
#if __ARM_ARCH < 8
    store(0x210, 5);
    store(0x290, 6);
    tell("parts: % %", load(0x210), load(0x290));
    say("nothing\n");
    load(0x400);
    store(0x404, 7);
#endif
    MPU_CTRL = 0;
    barrier();
    /* Users need their code and stack. */
    MPU_RNR = 7;
#if __ARM_ARCH >= 8
    MPU_RBAR = 0x10000000 | 6;
    MPU_RASR = 0x1001ffe0 | 1;
    MPU_RNR = 6;
    MPU_RBAR = ((uint32_t)room + 0x200) | 2;
    MPU_RASR = 0x3800ffe0 | 1;
    MPU_RNR = 5;
    MPU_RBAR = 0x38000000 | 2;
    MPU_RASR = ((uint32_t)room - 32) | 1;
#else
    MPU_RBAR = (uint32_t)check_mpu & 0xf8000000;
    MPU_RASR = 6 << 24 | 1 << 18 | 16 << 1 | 1;
    MPU_RNR = 0;
    MPU_RBAR = 0x20000000; /* all of the RAM; the others lie over it */
    MPU_RASR = 3 << 24 | 1 << 18 | 12 << 1 | 1;
    MPU_RNR = 1;
    MPU_RBAR = (uint32_t)room;
    MPU_RASR = 2 << 24 | 1 << 18 | 6 << 1 | 1;
#endif
    MPU_CTRL = 1;
    barrier();
    as_user(0x10, 8);
    as_user(0x90, 9);
    as_user(0x110, 10);
    MPU_CTRL = 0;
    barrier();
    SHCSR = 0;
}
#else
void check_mpu(void) {}
#endif
