#include "app/routes.h"

#include "app/call.h"
#include "app/commanded.h"
#include "app/identity.h"
#include "app/messages.h"
#include "app/prompt.h"
#include "app/registration.h"
#include "app/storage.h"
#include "app/update.h"
#include "app/userdata.h"
#include "lib/cbor.h"
#include "link/radio.h"

#define REGISTER_AGAIN_US 60000000u

static void answer_message(const struct coap_message *request, struct coap_builder *reply) {
    struct cbor_field text = {
        .key = 1, .kind = CBOR_TEXT, .required = true, .minimum = 1, .maximum = MESSAGE_MAX};
    if (cbor_decode_map(request->payload, request->payload_length, &text, 1) != CBOR_OK) {
        coap_build_code(reply, COAP_BAD_REQUEST);
        return;
    }
    messages_receive(text.data, text.length);
    coap_build_code(reply, COAP_CHANGED);
}

static void say_contact(enum radio_contact contact, uint8_t code) {
    if (contact == RADIO_REGISTERED) {
        console_say("link: registered");
    } else if (contact == RADIO_REFUSED) {
        console_say("link: the server refuses to register this terminal, code %d.%02d",
                    COAP_CODE_CLASS(code), COAP_CODE_DETAIL(code));
    } else if (contact == RADIO_USED_UP) {
        console_say("link: no number is left for its messages");
    } else {
        console_say("link: the server does not answer");
    }
}

static void take_response(uint32_t tag, enum coap_outcome outcome,
                          const struct coap_message *response) {
    if (tag >= CALL_FIRST_TAG) {
        call_take_response(tag, outcome, response);
    } else {
        update_take_response(tag, outcome, response);
    }
}

void routes_start(void) {
    static const struct radio_resource resources[] = {
        {"announce", COAP_POST, update_answer_announcement},
        {"backup", COAP_POST, userdata_answer_backup},
        {"message", COAP_POST, answer_message},
        {"restore", COAP_POST, userdata_answer_restore},
        {"say", COAP_POST, call_answer_say},
        {"status", COAP_GET, update_answer_status},
        {"upgrade", COAP_POST, commanded_answer_upgrade},
    };
    static const struct radio_owner owner = {
        .resources = resources,
        .resource_count = sizeof resources / sizeof resources[0],
        .register_again_us = REGISTER_AGAIN_US,
        .describe = registration_describe,
        .contact = say_contact,
        .response = take_response,
    };
    radio_start(&owner, radio_seed(identity()->terminal.serial, storage_journal()->log.next));
}
