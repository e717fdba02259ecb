/* Runs on a Cortex-A15 as a boot loader does, and says at a PL011 what it finds. Then each byte
 * that comes asks for one thing. */
#include <stdint.h>

#define UART ((volatile uint32_t *)0x09000000)
#define NOR ((volatile uint32_t *)0x04000000)
enum { DR = 0, FR = 6, CR = 12, RXFE = 1 << 4, TXFF = 1 << 5 };
enum { RAM = 0x40000000, ONE_MS = 62500 };

static void put(char c) {
    while (UART[FR] & TXFF) {
    }
    UART[DR] = (uint32_t)c;
}

static void say(const char *text) {
    while (*text) {
        put(*text++);
    }
}

static void say_number(uint32_t value) {
    for (int shift = 28; shift >= 0; shift -= 4) {
        put("0123456789abcdef"[value >> shift & 15]);
    }
    put('\n');
}

static uint64_t count(void) {
    uint32_t low, high;
    __asm__ volatile("mrrc p15, 1, %0, %1, c14" : "=r"(low), "=r"(high));
    return (uint64_t)high << 32 | low;
}

static uint32_t call(uint32_t function) {
    register uint32_t r0 __asm__("r0") = function;
    __asm__ volatile(".arch_extension virt\nhvc #0" : "+r"(r0) : : "memory");
    return r0;
}

static void erase(void) {
    NOR[0] = 0x00200020;
    NOR[0] = 0x00d000d0;
    while ((NOR[0] & 0x00800080) != 0x00800080) {
        count();
    }
    NOR[0] = 0x00ff00ff;
}

static void obey(uint32_t byte) {
    uint64_t start = count();
    switch (byte) {
    case 't':
        while (count() - start < ONE_MS) {
        }
        say_number((uint32_t)(count() - start) / ONE_MS);
        break;
    case 'v':
        say_number(call(0x84000000u));
        break;
    case 'r':
        call(0x84000009u);
        break;
    case 'o':
        call(0x84000008u);
        break;
    case 'u':
        __asm__ volatile("udf #0");
        break;
    case 'n':
        *(volatile uint32_t *)0x80000000 = 0;
        break;
    case 'e':
        erase();
        say_number(NOR[0]);
        break;
    default:
        say_number(call(0x8400ffffu));
        break;
    }
}

__attribute__((used)) void run(void) {
    uint32_t rate;
    UART[CR] = 0x301;
    __asm__ volatile("mrc p15, 0, %0, c14, c0, 0" : "=r"(rate));
    say("rate ");
    say_number(rate);
    say("ram ");
    say_number(*(volatile uint32_t *)RAM);
    for (;;) {
        while (UART[FR] & RXFE) {
        }
        obey(UART[DR] & 0xff);
    }
}

__attribute__((naked, section("first"), target("arm"), used)) void start(void) {
    __asm__ volatile("ldr sp, =0x40010000\nblx run");
}
