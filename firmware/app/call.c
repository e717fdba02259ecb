#include "app/call.h"

#include <string.h>

#include "app/identity.h"
#include "app/prompt.h"
#include "lib/cbor.h"
#include "lib/text.h"

#define TAG_CALL CALL_FIRST_TAG
#define TAG_KEY (CALL_FIRST_TAG + 1u)
#define TAG_HANG_UP (CALL_FIRST_TAG + 2u)

#define TEXT_MAX 160u /* bytes of UTF-8 */
#define MAX_WAITING 32u

enum state { CALL_NONE, CALL_DIALLING, CALL_RINGING, CALL_ON };

static struct {
    enum state state;
    uint32_t number;  /* of this call, or the last one; counts from the terminal's start */
    uint32_t texts;   /* that were heard in it */
    uint32_t pressed; /* keys that were sent and taken */
    bool sending;     /* the key after them is under way */
    char waiting[MAX_WAITING + 1];
    bool hanging_up; /* to be sent, for the call `number` */
} call;

static bool is_key(char character) {
    return character != '\0' && strchr("0123456789*#", character) != NULL;
}

/* ---- The user ---- */

bool call_start(void) {
    if (call.state != CALL_NONE) {
        return false;
    }
    call.state = CALL_DIALLING;
    call.number++;
    call.texts = 0;
    call.pressed = 0;
    call.sending = false;
    call.waiting[0] = '\0';
    call.hanging_up = false;
    return true;
}

/* The call is over here. */
static void end(const char *why) {
    coap_request_cancel(radio_endpoint(), TAG_CALL);
    coap_request_cancel(radio_endpoint(), TAG_KEY);
    call.state = CALL_NONE;
    console_say("call: %s", why);
}

bool call_hang_up(void) {
    if (call.state == CALL_NONE) {
        return false;
    }
    call.hanging_up = call.state != CALL_DIALLING;
    end("ended");
    return true;
}

bool call_press(const char *line) {
    size_t count = 0;
    for (const char *next = line; *next != '\0'; next++) {
        if (*next != ' ' && !is_key(*next)) {
            return false;
        }
        count += *next != ' ';
    }
    if (call.state == CALL_NONE || count == 0) {
        return false;
    }
    size_t length = strlen(call.waiting);
    if (count > MAX_WAITING - length) {
        console_say("too many keys at once: type them again");
        return true;
    }
    const size_t first = length;
    for (; *line != '\0'; line++) {
        if (*line != ' ') {
            call.waiting[length++] = *line;
        }
    }
    call.waiting[length] = '\0';
    console_say("pressed %s", call.waiting + first);
    return true;
}

/* ---- Requests ---- */

static bool send(const char *path, uint32_t tag, char key, uint64_t now) {
    struct coap_builder builder;
    if (!coap_request_begin(radio_endpoint(), &builder, COAP_POST)) {
        return false; /* all exchanges are under way: at the next poll */
    }
    uint8_t payload[64];
    struct cbor_encoder map;
    cbor_encoder_init(&map, payload, sizeof payload);
    cbor_put_map(&map, key != '\0' ? 4 : 2);
    cbor_pair_text(&map, 1, identity()->terminal.serial);
    cbor_pair_uint(&map, 2, call.number);
    if (key != '\0') {
        cbor_pair_uint(&map, 3, call.pressed);
        cbor_pair_text(&map, 4, (const char[]){key, '\0'});
    }
    coap_build_path(&builder, path);
    coap_build_cbor(&builder, payload, cbor_encoder_finish(&map));
    return coap_request_send(radio_endpoint(), &builder, tag, now);
}

void call_poll(uint64_t now) {
    if (call.hanging_up && send("hang-up", TAG_HANG_UP, '\0', now)) {
        call.hanging_up = false;
    }
    if (call.state == CALL_DIALLING && send("call", TAG_CALL, '\0', now)) {
        call.state = CALL_RINGING;
    }
    if (call.state == CALL_ON && !call.sending && call.waiting[0] != '\0') {
        call.sending = send("key", TAG_KEY, call.waiting[0], now);
    }
}

static void take_answer_to_call(const struct coap_message *response) {
    if (COAP_CODE_CLASS(response->code) == 2) {
        call.state = CALL_ON;
    } else if (response->code == COAP_SERVICE_UNAVAILABLE) {
        end("nobody takes calls");
    } else {
        end("refused");
    }
}

static void take_answer_to_key(const struct coap_message *response) {
    call.sending = false;
    if (COAP_CODE_CLASS(response->code) != 2) {
        end("ended");
        return;
    }
    call.pressed++;
    memmove(call.waiting, call.waiting + 1, strlen(call.waiting));
}

void call_take_response(uint32_t tag, enum coap_outcome outcome,
                        const struct coap_message *response) {
    if (tag == TAG_HANG_UP || call.state == CALL_NONE) {
        return; /* it is over here, whatever the server has heard of it */
    }
    if (outcome != COAP_RESPONSE) {
        end("the line is dead");
    } else if (tag == TAG_CALL) {
        take_answer_to_call(response);
    } else {
        take_answer_to_key(response);
    }
}

/* ---- What is said ---- */

void call_answer_say(const struct coap_message *request, struct coap_builder *reply) {
    enum { NUMBER, TEXTS, TEXT, LAST, COUNT };
    struct cbor_field fields[COUNT] = {
        [NUMBER] = {.key = 1, .kind = CBOR_UINT, .required = true, .maximum = UINT32_MAX},
        [TEXTS] = {.key = 2, .kind = CBOR_UINT, .required = true, .maximum = UINT32_MAX},
        [TEXT] = {.key = 3, .kind = CBOR_TEXT, .required = true, .minimum = 1, .maximum = TEXT_MAX},
        [LAST] = {.key = 4, .kind = CBOR_UINT, .required = true, .maximum = 1},
    };
    if (cbor_decode_map(request->payload, request->payload_length, fields, COUNT) != CBOR_OK) {
        coap_build_code(reply, COAP_BAD_REQUEST);
        return;
    }
    const bool on = call.state == CALL_RINGING || call.state == CALL_ON;
    const bool last = fields[LAST].number != 0;
    /* A text that comes again was heard; one after a gap belongs to a call before the last start.
     */
    const bool again = fields[TEXTS].number < call.texts;
    if (fields[NUMBER].number != call.number || fields[TEXTS].number > call.texts ||
        (!on && !again)) {
        coap_build_code(reply, COAP_NOT_FOUND);
        return;
    }
    coap_build_code(reply, COAP_CHANGED);
    if (again) {
        return;
    }
    char text[TEXT_MAX + 1];
    text_copy_shown(text, fields[TEXT].data, fields[TEXT].length);
    call.texts++;
    call.state = CALL_ON;
    console_say("call: %s", text);
    if (last) {
        end("ended");
    }
}
