#include "lib/print.h"
#include "lib/text.h"
#include "tests/check.h"

#define CHECK_PRINT(expected, ...)                                                                 \
    do {                                                                                           \
        char text_[80];                                                                            \
        CHECK_EQUAL(print_text(text_, sizeof text_, __VA_ARGS__), strlen(expected));               \
        CHECK_TEXT(text_, expected);                                                               \
    } while (0)

static void test_print(void) {
    CHECK_PRINT("", "%s", "");
    CHECK_PRINT("a b|  c|d  |", "%s %c|%3s|%-3s|", "a", 'b', "c", "d");
    CHECK_PRINT("0 -1 2147483647 -2147483648", "%d %d %d %d", 0, -1, 2147483647, -2147483647 - 1);
    CHECK_PRINT("0 4294967295 ffffffff FFFFFFFF", "%u %u %x %X", 0u, 4294967295u, ~0u, ~0u);
    CHECK_PRINT("0000beef|    beef|beef    |", "%08x|%8x|%-8x|", 0xBEEFu, 0xBEEFu, 0xBEEFu);
    CHECK_PRINT("-0042|  -42|-42  |", "%05d|%5d|%-5d|", -42, -42, -42);
    CHECK_PRINT("100%", "%u%%", 100u);
    CHECK_PRINT("1234567890", "%2u", 1234567890u);

    char small[4] = "xxx";
    CHECK_EQUAL(print_text(small, sizeof small, "%s", "hello"), 3);
    CHECK_TEXT(small, "hel");
    CHECK_EQUAL(print_text(small, 0, "%s", "hello"), 0);
    CHECK_TEXT(small, "hel");
}

static void test_utf8(void) {
    static const char *const good[] = {"",
                                       "abc",
                                       "\xC2\x80",
                                       "\xDF\xBF",
                                       "\xE0\xA0\x80",
                                       "\xED\x9F\xBF",
                                       "\xEE\x80\x80",
                                       "\xF0\x90\x80\x80",
                                       "\xF4\x8F\xBF\xBF",
                                       "caf\xC3\xA9 \xE2\x82\xAC"};
    static const char *const bad[] = {"\x80",
                                      "\xBF",
                                      "\xC0\x80",
                                      "\xC1\xBF",
                                      "\xC2",
                                      "\xC2\x41",
                                      "\xE0\x9F\xBF",
                                      "\xED\xA0\x80",
                                      "\xED\xBF\xBF",
                                      "\xE2\x82",
                                      "\xF0\x8F\xBF\xBF",
                                      "\xF4\x90\x80\x80",
                                      "\xF5\x80\x80\x80",
                                      "\xF8\x88\x80\x80\x80",
                                      "\xFF",
                                      "a\xF0\x90\x80"};
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        CHECK(text_is_utf8(good[i], strlen(good[i])));
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK(!text_is_utf8(bad[i], strlen(bad[i])));
        CHECK(!text_is_printable(bad[i], strlen(bad[i])));
    }
    CHECK(text_is_printable("caf\xC3\xA9 ~\xC2\xA0", 9));
    CHECK(!text_is_printable("a\n", 2));
    CHECK(!text_is_printable("a\0", 2));
    CHECK(!text_is_printable("\x7F", 1));
    CHECK(!text_is_printable("\xC2\x9B", 2)); /* CSI of C1 */
    CHECK(text_is_utf8("a\0b", 3));
}

static void test_numbers_and_words(void) {
    uint32_t value = 7;
    CHECK(text_to_uint("0", 0, &value));
    CHECK_EQUAL(value, 0);
    CHECK(text_to_uint("4294967295", UINT32_MAX, &value));
    CHECK_EQUAL(value, UINT32_MAX);
    static const char *const bad[] = {"",   "-1",  "+1",         " 1",
                                      "1 ", "0x1", "4294967296", "99999999999999999999999999"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        CHECK(!text_to_uint(bad[i], UINT32_MAX, &value));
    }
    CHECK(text_to_uint("100", 100, &value));
    CHECK(!text_to_uint("101", 100, &value));

    char line[] = "  pb\tadd  Ann 12 ";
    char *cursor = line;
    CHECK_TEXT(text_next_word(&cursor), "pb");
    CHECK_TEXT(text_next_word(&cursor), "add");
    CHECK_TEXT(cursor, "Ann 12 ");
    CHECK_TEXT(text_next_word(&cursor), "Ann");
    CHECK_TEXT(text_next_word(&cursor), "12");
    CHECK(text_next_word(&cursor) == NULL);
    CHECK(text_next_word(&cursor) == NULL);
}

static char echo[128];

static void emit(void *ctx, char character) {
    (void)ctx;
    const size_t length = strlen(echo);
    CHECK(length + 1 < sizeof echo);
    echo[length] = character;
    echo[length + 1] = '\0';
}

/* Types `keys`; returns how many lines were completed. */
static int type(struct line_editor *line, const char *keys) {
    int lines = 0;
    memset(echo, 0, sizeof echo);
    for (; *keys != '\0'; keys++) {
        lines += line_feed(line, (uint8_t)*keys, emit, NULL);
    }
    return lines;
}

static void test_line(void) {
    char buffer[8];
    struct line_editor line;
    line_init(&line, buffer, sizeof buffer);
    CHECK_EQUAL(type(&line, "helo\blo\r"), 1);
    CHECK_TEXT(buffer, "hello");
    CHECK_TEXT(echo, "helo\b \blo\r\n");
    line_clear(&line);
    CHECK_EQUAL(type(&line, "\n"), 0); /* of the CR before it */
    CHECK_EQUAL(type(&line, "\n"), 1);
    CHECK_TEXT(buffer, "");

    CHECK_EQUAL(type(&line, "12345678"), 0);
    CHECK_TEXT(buffer, "1234567");
    CHECK_TEXT(echo, "1234567\a");
    CHECK_EQUAL(type(&line, "\x15"), 0);
    CHECK_TEXT(buffer, "");
    CHECK_EQUAL(type(&line, "\x7F\x1B\x01"), 0);
    CHECK_TEXT(echo, "");

    CHECK_EQUAL(type(&line, "a\xE2\x82\xAC\x7F"), 0); /* one character is taken away */
    CHECK_TEXT(buffer, "a");
    CHECK_EQUAL(type(&line, "\x7F"), 0);
    CHECK_EQUAL(type(&line, "\x80\x80\x7F"), 0); /* ill-formed, but bounded */
    CHECK_TEXT(buffer, "");
}

static void test_shown(void) {
    char shown[16];
    static const char text[] = "a\x1B[2J\xC2\x9B\xC3\xA9\x7F";
    text_copy_shown(shown, (const uint8_t *)text, sizeof text - 1);
    CHECK_TEXT(shown, "a [2J  \xC3\xA9 ");
    text_copy_shown(shown, (const uint8_t *)"\xC2", 1); /* never beyond the end */
    CHECK_TEXT(shown, "\xC2");
}

int main(void) {
    test_shown();
    test_print();
    test_utf8();
    test_numbers_and_words();
    test_line();
    return 0;
}
