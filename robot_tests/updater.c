/* An updater for an STM32F103 that is as small as one can be, for target_file.robot. On `u` it
 * erases a page, and programs three half-words and a mark. With the mark it is updated. With
 * MARK_FIRST it has a bug: the mark comes before what it vouches for. What goes before this file,
 * and REGISTER, are in tests/small_firmware.py. */
enum { MARK = 0x600D, HALF_WORDS = 3 };

static volatile unsigned short *const page = (volatile unsigned short *)0x08004000;
static const unsigned short update[HALF_WORDS] = {0x1111, 0x2222, 0x3333};

static void say(const char *text) {
    for (; *text != 0; text++) {
        while (!(REGISTER(0x40004400) & 1 << 7)) {
        }
        REGISTER(0x40004404) = (unsigned char)*text;
    }
}

static unsigned char hear(void) {
    while (!(REGISTER(0x40004400) & 1 << 5)) {
    }
    return (unsigned char)REGISTER(0x40004404);
}

static void wait_for_flash(void) {
    while (REGISTER(0x4002200C) & 1) {
    }
    REGISTER(0x40022010) = 0;
}

static void erase(void) {
    REGISTER(0x40022010) = 1 << 1;
    REGISTER(0x40022014) = (unsigned)page;
    REGISTER(0x40022010) = 1 << 1 | 1 << 6;
    wait_for_flash();
}

static void program(unsigned place, unsigned short value) {
    REGISTER(0x40022010) = 1;
    page[place] = value;
    wait_for_flash();
}

static void install(void) {
    REGISTER(0x40022004) = 0x45670123;
    REGISTER(0x40022004) = 0xCDEF89AB;
    erase();
#ifdef MARK_FIRST
    program(HALF_WORDS, MARK);
#endif
    for (unsigned place = 0; place < HALF_WORDS; place++) {
        program(place, update[place]);
    }
#ifndef MARK_FIRST
    program(HALF_WORDS, MARK);
#endif
}

static unsigned is_whole(void) {
    unsigned same = 0;
    for (unsigned place = 0; place < HALF_WORDS; place++) {
        same += page[place] == update[place];
    }
    return same == HALF_WORDS;
}

void start(void) {
    REGISTER(0x40004408) = 8000000 / 115200;
    REGISTER(0x4000440C) = 1 << 13 | 1 << 3 | 1 << 2;
    if (page[HALF_WORDS] != MARK) {
        say("old\r\n");
        while (hear() != 'u') {
        }
        install();
    }
    say(is_whole() ? "ready\r\n" : "broken\r\n");
    for (;;) {
        __asm("wfi");
    }
}
