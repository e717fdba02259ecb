/* A small program for the in-process engine alone: each letter typed makes it do one thing. */
#include <stdint.h>

#define REG(address) (*(volatile uint32_t *)(address))
#define UART0 0x10009000u
#define TIMER 0x10011000u
#define WINDOW 0x40000000u
#define VICTIM 0x80000u
#define IN_RAM __attribute__((section(".ram"), noinline))

__attribute__((section(".vectors"), naked, target("arm"))) void reset(void) {
    __asm__ volatile("ldr sp, =0x48010000\n blx main\n");
}

IN_RAM static void put(char c) {
    while (REG(UART0 + 0x18) & 0x20) {
        __asm__ volatile("");
    }
    REG(UART0) = (uint32_t)c;
}

IN_RAM static void put_hex(uint32_t value) {
    for (int shift = 28; shift >= 0; shift -= 4) {
        uint32_t digit = value >> shift & 15;
        put((char)(digit < 10 ? '0' + digit : 'a' + digit - 10));
    }
    put('\n');
}

IN_RAM static void wait_ready(void) {
    while ((REG(WINDOW + VICTIM) & 0x00800080) != 0x00800080) {
        REG(TIMER + 8) = 0;
        REG(TIMER) = 1000;
        REG(TIMER + 12) = 1;
        REG(TIMER + 8) = 0xa3; /* one shot, 32 bits, interrupt */
        __asm__ volatile("wfi");
    }
    REG(TIMER + 8) = 0;
    REG(TIMER + 12) = 1;
}

IN_RAM static void command(uint32_t first, uint32_t second) {
    REG(WINDOW + VICTIM) = first;
    REG(WINDOW + VICTIM) = second;
}

IN_RAM static void erase(void) {
    command(0x00600060, 0x00d000d0);
    command(0x00200020, 0x00d000d0);
    wait_ready();
    REG(WINDOW) = 0x00ff00ff;
}

IN_RAM static void program(uint32_t value) {
    command(0x00600060, 0x00d000d0);
    command(0x00400040, value);
    wait_ready();
    REG(WINDOW) = 0x00ff00ff;
}

IN_RAM static uint32_t read_while_status(void) {
    REG(WINDOW) = 0x00700070;
    uint32_t value = REG(VICTIM);
    REG(WINDOW) = 0x00ff00ff;
    return value;
}

static uint32_t call_victim(void) {
    return ((uint32_t (*)(void))(VICTIM | 1))();
}

extern uint32_t ram_start[], ram_end[], ram_load[];

__attribute__((used)) int main(void) {
    for (uint32_t *to = ram_start, *from = ram_load; to < ram_end;) {
        *to++ = *from++;
    }
    REG(UART0 + 0x24) = 13; /* 115200 baud of 24 MHz */
    REG(UART0 + 0x28) = 1;
    REG(UART0 + 0x2c) = 0x70;
    REG(UART0 + 0x30) = 0x301;
    REG(UART0 + 0x38) = 0x50;
    REG(0x1e001104) = 1 << 5 | 1 << 2;
    REG(0x1e001000) = 1;
    REG(0x1e000104) = 0xf0;
    REG(0x1e000100) = 1;
    put('!');
    put('\n');
    for (;;) {
        __asm__ volatile("wfi");
        while (!(REG(UART0 + 0x18) & 0x10)) {
            char c = (char)REG(UART0);
            switch (c) {
            case 'e':
                erase();
                break;
            case '7':
                program(0x47702007);
                break; /* movs r0, #7; bx lr */
            case '9':
                program(0x47702009);
                break;
            case 'c':
                put_hex(call_victim());
                break;
            case 'l':
                put_hex(REG(VICTIM));
                break;
            case 't':
                put_hex(REG(0x1000005c));
                break;
            case 's':
                put_hex(REG(0x48012340));
                REG(0x48012340) = 0x12345678;
                break;
            case 'r':
                put_hex(read_while_status());
                break;
            case 'f':
                REG(WINDOW) = 0x00700070;
                break; /* from the NOR: forbidden */
            case 'b':
                put_hex(REG(0x48200000));
                break; /* beyond the SRAM */
            case 'h':
                for (volatile int i = 0;; i++) {
                }
                break;
            case 'o':
                for (volatile int i = 0; i < 2000000; i++) {
                }
                break;
            default:
                put(c);
                break;
            }
        }
    }
}
