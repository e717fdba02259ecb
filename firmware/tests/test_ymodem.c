#include "lib/crc.h"
#include "lib/ymodem.h"
#include "tests/check.h"
#include "tests/random.h"

#define SECOND UINT64_C(1000000)
#define LIMIT 8192u

enum { SOH = 0x01, STX = 0x02, EOT = 0x04, ACK = 0x06, NAK = 0x15, CAN = 0x18 };

static struct ymodem ymodem;
static uint64_t now;
static char answers[512]; /* what the receiver said since the last look */
static uint8_t file[LIMIT];
static uint32_t stored;
static int refuse_at; /* the call of `data` that says no, 0: none */
static int data_calls;

static void on_send(void *ctx, const uint8_t *data, size_t length) {
    (void)ctx;
    for (size_t i = 0; i < length; i++) {
        const size_t at = strlen(answers);
        CHECK(at + 1 < sizeof answers);
        answers[at] = data[i] == ACK   ? 'a'
                      : data[i] == NAK ? 'n'
                      : data[i] == CAN ? 'x'
                                       : (char)data[i];
        answers[at + 1] = '\0';
    }
}

static int on_begin(void *ctx, const char *name, bool size_known, uint32_t size) {
    (void)ctx;
    CHECK(size_known || size == 0);
    return strcmp(name, "refused") == 0;
}

static int on_data(void *ctx, uint32_t offset, const uint8_t *data, size_t length) {
    (void)ctx;
    CHECK_EQUAL(offset, stored);
    CHECK(length > 0 && length <= LIMIT - stored);
    memcpy(file + stored, data, length);
    stored += (uint32_t)length;
    return ++data_calls == refuse_at;
}

static const struct ymodem_callbacks callbacks = {on_send, on_begin, on_data, NULL};

static void start(void) {
    memset(answers, 0, sizeof answers);
    now = 0;
    stored = 0;
    refuse_at = 0;
    data_calls = 0;
    ymodem_start(&ymodem, &callbacks, LIMIT, now);
}

static const char *heard(void) {
    static char copy[sizeof answers];
    memcpy(copy, answers, sizeof copy);
    memset(answers, 0, sizeof answers);
    return copy;
}

static void feed(const void *data, size_t length) {
    ymodem_feed(&ymodem, data, length, now);
}

/* Lets time pass until the next deadline is reached. */
static void wait_for_deadline(void) {
    now = ymodem_poll(&ymodem, now);
    CHECK(now != YMODEM_NEVER);
    ymodem_poll(&ymodem, now);
}

/* A packet with `length` bytes of data in `size`, padded with `padding`. */
static size_t make_packet(uint8_t *packet, uint8_t number, const void *data, size_t length,
                          size_t size, int padding) {
    packet[0] = size == 128 ? SOH : STX;
    packet[1] = number;
    packet[2] = (uint8_t)~number;
    memset(packet + 3, padding, size);
    memcpy(packet + 3, data, length);
    const uint16_t crc = crc16_xmodem(packet + 3, size);
    packet[3 + size] = (uint8_t)(crc >> 8);
    packet[4 + size] = (uint8_t)crc;
    return size + 5;
}

static void packet(uint8_t number, const void *data, size_t length, size_t size) {
    uint8_t bytes[1029];
    feed(bytes, make_packet(bytes, number, data, length, size, number == 0 ? 0 : 0x1A));
}

#define HEADER(text) packet(0, text, sizeof(text) - 1, 128)

static uint8_t content[LIMIT];

static void test_transfer(void) {
    start();
    CHECK_TEXT(heard(), "C");
    HEADER("firmware.bin\0"
           "1500 14512345 100644");
    CHECK_TEXT(heard(), "aC");
    CHECK_TEXT(ymodem.name, "firmware.bin");
    CHECK(ymodem.size_known);
    CHECK_EQUAL(ymodem.size, 1500);
    packet(1, content, 1024, 1024);
    CHECK_TEXT(heard(), "a");
    packet(2, content + 1024, 128, 128);
    packet(3, content + 1152, 348, 1024);
    CHECK_TEXT(heard(), "aa");
    CHECK_EQUAL(stored, 1500);
    feed("\x04", 1);
    CHECK_TEXT(heard(), "n");
    feed("\x04", 1);
    CHECK_TEXT(heard(), "aC");
    CHECK_EQUAL(ymodem.status, YMODEM_RECEIVING);
    HEADER("");
    CHECK_TEXT(heard(), "a");
    CHECK_EQUAL(ymodem.status, YMODEM_DONE);
    CHECK_EQUAL(ymodem.received, 1500);
    CHECK(memcmp(file, content, 1500) == 0);
    CHECK_EQUAL(ymodem_poll(&ymodem, now), YMODEM_NEVER);
    feed("xxxx", 4);
    CHECK_TEXT(heard(), "");
}

static void test_packet_numbers_run_over(void) {
    static uint8_t small[128];
    start();
    packet(0, "f", 1, 1024); /* no size, and a header of 1K */
    CHECK(!ymodem.size_known);
    static uint8_t number = 0;
    for (int i = 0; i < 64; i++) {
        packet(++number, small, sizeof small, 128);
    }
    CHECK_EQUAL(stored, LIMIT);
    CHECK_EQUAL(ymodem.status, YMODEM_RECEIVING);
    packet(++number, small, sizeof small, 128); /* beyond the limit */
    CHECK_EQUAL(ymodem.status, YMODEM_TOO_LARGE);
    CHECK_EQUAL(stored, LIMIT);

    start();
    HEADER("f\0"
           "100");
    for (int i = 1; i <= 300; i++) { /* beyond the announced size: dropped */
        packet((uint8_t)i, small, sizeof small, 128);
    }
    CHECK_EQUAL(stored, 100);
    CHECK_EQUAL(ymodem.status, YMODEM_RECEIVING);
}

static void test_asks_for_ever(void) {
    start();
    CHECK_TEXT(heard(), "C");
    for (int i = 0; i < 100; i++) {
        const uint64_t before = now;
        wait_for_deadline();
        CHECK_EQUAL(now - before, SECOND);
        CHECK_TEXT(heard(), "C");
    }
    feed("what?\r", 6); /* somebody types: it waits until the line is quiet */
    CHECK_TEXT(heard(), "");
    wait_for_deadline();
    CHECK_TEXT(heard(), "C");
    CHECK_EQUAL(ymodem.status, YMODEM_RECEIVING);
}

static void test_repeats(void) {
    uint8_t bytes[1029];
    start();
    heard();
    HEADER("f\0"
           "2048");
    CHECK_TEXT(heard(), "aC");
    HEADER("f\0"
           "2048"); /* the ACK was lost */
    CHECK_TEXT(heard(), "aC");
    wait_for_deadline(); /* the C was lost */
    CHECK_TEXT(heard(), "C");
    const size_t length = make_packet(bytes, 1, content, 1024, 1024, 0);
    bytes[500] ^= 1;
    feed(bytes, length); /* a corrupted packet */
    CHECK_TEXT(heard(), "");
    wait_for_deadline();
    CHECK_TEXT(heard(), "C");
    packet(1, content, 1024, 1024);
    CHECK_TEXT(heard(), "a");
    packet(1, content, 1024, 1024); /* twice */
    CHECK_TEXT(heard(), "a");
    CHECK_EQUAL(stored, 1024);
    feed(bytes, 700); /* one that breaks off */
    CHECK_TEXT(heard(), "");
    wait_for_deadline();
    CHECK_TEXT(heard(), "n");
    feed("\xAA", 1); /* noise */
    wait_for_deadline();
    CHECK_TEXT(heard(), "n");
    feed("\x04", 1); /* what looks like an EOT, but is none */
    CHECK_TEXT(heard(), "n");
    packet(2, content + 1024, 1024, 1024);
    CHECK_TEXT(heard(), "a");
    feed("\x04\x04\x04", 3); /* the third: the ACK was lost */
    CHECK_TEXT(heard(), "naCaC");
    HEADER("");
    CHECK_EQUAL(ymodem.status, YMODEM_DONE);
    CHECK(memcmp(file, content, 2048) == 0);
}

static void test_ends(void) {
    static const struct {
        const char *bytes; /* after a whole header of a file of 100 bytes */
        size_t length;
        enum ymodem_status status;
        const char *answer;
    } cases[] = {{"\x18\x18", 2, YMODEM_CANCELLED, ""},
                 {"\xAA\x18\x18", 3, YMODEM_CANCELLED, ""}, /* also in the middle of noise */
                 {"\x18", 1, YMODEM_RECEIVING, ""},
                 {"\x18\xAA\x18", 3, YMODEM_RECEIVING, ""},
                 {"\x04\x04", 2, YMODEM_SHORT, "nxxxxx"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        start();
        HEADER("f\0"
               "100");
        heard();
        feed(cases[i].bytes, cases[i].length);
        CHECK_EQUAL(ymodem.status, cases[i].status);
        CHECK_TEXT(heard(), cases[i].answer);
    }
    start();
    HEADER("f\0"
           "100");
    heard();
    packet(2, content, 100, 128);
    CHECK_EQUAL(ymodem.status, YMODEM_OUT_OF_STEP);
    CHECK_TEXT(heard(), "xxxxx");

    start();
    HEADER("f\0"
           "100");
    for (int i = 0; ymodem.status == YMODEM_RECEIVING; i++) {
        CHECK(i < 100);
        wait_for_deadline();
    }
    CHECK_EQUAL(ymodem.status, YMODEM_TIMED_OUT);
    CHECK(now <= 120 * SECOND);

    start();
    heard();
    ymodem_abort(&ymodem);
    CHECK_EQUAL(ymodem.status, YMODEM_REFUSED);
    CHECK_TEXT(heard(), "xxxxx");
}

static void test_headers(void) {
    static const struct {
        const char *text;
        size_t length;
        enum ymodem_status status;
    } cases[] = {{"f\0"
                  "8192",
                  6, YMODEM_RECEIVING},
                 {"f\0"
                  "8193",
                  6, YMODEM_TOO_LARGE},
                 {"f\0"
                  "99999999999999999999999999",
                  28, YMODEM_TOO_LARGE},
                 {"f\0"
                  "18446744073709551617",
                  22, YMODEM_TOO_LARGE},
                 {"f\0"
                  "12x",
                  5, YMODEM_BAD_HEADER},
                 {"f\0-1", 4, YMODEM_BAD_HEADER},
                 {"f\0", 2, YMODEM_RECEIVING},
                 {"refused\0"
                  "1",
                  9, YMODEM_REFUSED},
                 {"", 0, YMODEM_NO_FILE}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        start();
        packet(0, cases[i].text, cases[i].length, 128);
        CHECK_EQUAL(ymodem.status, cases[i].status);
    }
    start();
    uint8_t endless[128]; /* a name without an end */
    memset(endless, 'n', sizeof endless);
    packet(0, endless, sizeof endless, 128);
    CHECK_EQUAL(ymodem.status, YMODEM_BAD_HEADER);

    start();
    memset(endless, 0x1B, 100); /* a name that would confuse a terminal */
    endless[100] = 0;
    endless[101] = '5';
    endless[102] = 0;
    packet(0, endless, 103, 128);
    CHECK_EQUAL(strlen(ymodem.name), YMODEM_NAME_SIZE - 1);
    CHECK_EQUAL(ymodem.name[0], '?');

    start();
    packet(1, content, 128, 128); /* XMODEM begins so */
    CHECK_EQUAL(ymodem.status, YMODEM_NO_HEADER);

    start();
    packet(2, content, 128, 128); /* a sender in the middle of something */
    CHECK_EQUAL(ymodem.status, YMODEM_OUT_OF_STEP);
}

static void reach_end_of_file(void) {
    start();
    HEADER("f\0"
           "100");
    packet(1, content, 100, 128);
    feed("\x04\x04", 2);
    heard();
}

static void test_end_of_batch(void) {
    reach_end_of_file();
    HEADER("second\0"
           "1");
    CHECK_EQUAL(ymodem.status, YMODEM_MORE_FILES);

    reach_end_of_file();
    packet(2, content, 100, 128);
    CHECK_EQUAL(ymodem.status, YMODEM_OUT_OF_STEP);

    /* A sender that says nothing more: the file is whole. */
    reach_end_of_file();
    while (ymodem.status == YMODEM_RECEIVING) {
        wait_for_deadline();
    }
    CHECK_EQUAL(ymodem.status, YMODEM_DONE);
    CHECK(now <= 10 * SECOND);

    start(); /* an empty file */
    HEADER("f\0"
           "0");
    feed("\x04\x04", 2);
    HEADER("");
    CHECK_EQUAL(ymodem.status, YMODEM_DONE);
    CHECK_EQUAL(stored, 0);

    start();
    refuse_at = 2;
    HEADER("f\0"
           "4000");
    packet(1, content, 1024, 1024);
    packet(2, content + 1024, 1024, 1024);
    CHECK_EQUAL(ymodem.status, YMODEM_REFUSED);
    packet(3, content + 2048, 1024, 1024);
    CHECK_EQUAL(data_calls, 2);
}

static void test_texts(void) {
    for (enum ymodem_status status = YMODEM_RECEIVING; status <= YMODEM_MORE_FILES; status++) {
        CHECK(strcmp(ymodem_status_text(status), "unknown status") != 0);
    }
    CHECK_TEXT(ymodem_status_text((enum ymodem_status)99), "unknown status");
}

int main(void) {
    struct random random = random_from(1);
    for (size_t i = 0; i < sizeof content; i++) {
        content[i] = (uint8_t)random_next(&random);
    }
    test_transfer();
    test_packet_numbers_run_over();
    test_asks_for_ever();
    test_repeats();
    test_ends();
    test_headers();
    test_end_of_batch();
    test_texts();
    return 0;
}
