#include "link/maps.h"

#include <string.h>

#include "lib/cbor.h"
#include "lib/text.h"

void maps_put_registration(struct coap_builder *request, const struct registration *registration) {
    uint8_t payload[MAPS_MAX];
    struct cbor_encoder map;
    cbor_encoder_init(&map, payload, sizeof payload);
    const bool commanded = registration->state == TERMINAL_COMMANDED;
    cbor_put_map(&map, commanded ? 11 : 10);
    cbor_pair_text(&map, 1, registration->serial);
    cbor_pair_text(&map, 2, registration->hardware_id);
    cbor_pair_text(&map, 3, registration->name);
    cbor_pair_text(&map, 4, registration->version);
    cbor_pair_text(&map, 5, registration->build_time);
    cbor_pair_bytes(&map, 6, registration->digest, IMAGE_DIGEST_SIZE);
    cbor_pair_uint(&map, 7, registration->state);
    cbor_pair_uint(&map, 8, registration->last_id);
    cbor_pair_uint(&map, 9, registration->last_result);
    cbor_pair_uint(&map, 10, registration->security_counter);
    if (commanded) {
        cbor_pair_uint(&map, 11, registration->nonce);
    }
    coap_build_cbor(request, payload, cbor_encoder_finish(&map));
}

void maps_put_report(struct coap_builder *request, const struct registration *me, uint32_t id,
                     enum update_phase phase, enum result result) {
    uint8_t payload[MAPS_MAX];
    struct cbor_encoder map;
    cbor_encoder_init(&map, payload, sizeof payload);
    cbor_put_map(&map, 7);
    cbor_pair_text(&map, 1, me->serial);
    cbor_pair_uint(&map, 2, id);
    cbor_pair_uint(&map, 3, phase);
    cbor_pair_uint(&map, 4, result);
    cbor_pair_text(&map, 5, me->version);
    cbor_pair_bytes(&map, 6, me->digest, IMAGE_DIGEST_SIZE);
    cbor_pair_text(&map, 7, result_text(result));
    coap_build_cbor(request, payload, cbor_encoder_finish(&map));
}

bool maps_get_announcement(const struct coap_message *request, struct announcement *announcement) {
    enum { ID, KIND, SIZE, FILE_DIGEST, VERSION, IMAGE_DIGEST, IMAGE_SIZE, MEMORY, COUNT };
    struct cbor_field fields[COUNT] = {
        [ID] = {.key = 1, .kind = CBOR_UINT, .minimum = 1, .maximum = UINT32_MAX},
        [KIND] = {.key = 2, .kind = CBOR_UINT, .maximum = UINT32_MAX},
        [SIZE] = {.key = 3, .kind = CBOR_UINT, .maximum = UINT32_MAX},
        [FILE_DIGEST] = {.key = 4, .kind = CBOR_BYTES, .minimum = 32, .maximum = 32},
        [VERSION] = {.key = 5, .kind = CBOR_TEXT, .minimum = 1, .maximum = MAPS_VERSION_SIZE - 1},
        [IMAGE_DIGEST] = {.key = 6, .kind = CBOR_BYTES, .minimum = 32, .maximum = 32},
        [IMAGE_SIZE] = {.key = 7, .kind = CBOR_UINT, .maximum = UINT32_MAX},
        [MEMORY] = {.key = 8, .kind = CBOR_UINT, .maximum = UINT32_MAX},
    };
    for (size_t i = 0; i < COUNT; i++) {
        fields[i].required = true;
    }
    if (cbor_decode_map(request->payload, request->payload_length, fields, COUNT) != CBOR_OK ||
        !text_is_printable(fields[VERSION].data, fields[VERSION].length) ||
        !cbor_copy_text(&fields[VERSION], announcement->version, sizeof announcement->version)) {
        return false;
    }
    announcement->id = (uint32_t)fields[ID].number;
    announcement->kind = (uint32_t)fields[KIND].number;
    announcement->size = (uint32_t)fields[SIZE].number;
    announcement->image_size = (uint32_t)fields[IMAGE_SIZE].number;
    announcement->working_memory = (uint32_t)fields[MEMORY].number;
    memcpy(announcement->file_digest, fields[FILE_DIGEST].data, 32);
    memcpy(announcement->image_digest, fields[IMAGE_DIGEST].data, IMAGE_DIGEST_SIZE);
    return true;
}

bool maps_get_upgrade(const struct coap_message *request, struct upgrade *upgrade) {
    enum { ID, VERSION, DIGEST, SIZE, SIGNATURE, HARDWARE, COUNTER, BACKUP, COUNT };
    struct cbor_field fields[COUNT] = {
        [ID] = {.key = 1, .kind = CBOR_UINT, .minimum = 1, .maximum = UINT32_MAX},
        [VERSION] = {.key = 2, .kind = CBOR_TEXT, .minimum = 1, .maximum = MAPS_VERSION_SIZE - 1},
        [DIGEST] = {.key = 3, .kind = CBOR_BYTES, .minimum = 32, .maximum = 32},
        [SIZE] = {.key = 4, .kind = CBOR_UINT, .maximum = UINT32_MAX},
        [SIGNATURE] = {.key = 5, .kind = CBOR_BYTES, .minimum = 64, .maximum = 64},
        [HARDWARE] = {.key = 6, .kind = CBOR_TEXT, .minimum = 1, .maximum = IMAGE_MAX_TEXT},
        [COUNTER] = {.key = 7, .kind = CBOR_UINT, .maximum = UINT32_MAX},
        [BACKUP] = {.key = 8, .kind = CBOR_BYTES, .minimum = 32, .maximum = 32},
    };
    char version[MAPS_VERSION_SIZE];
    for (size_t i = 0; i < COUNT; i++) {
        fields[i].required = true;
    }
    if (cbor_decode_map(request->payload, request->payload_length, fields, COUNT) != CBOR_OK ||
        !cbor_copy_text(&fields[VERSION], version, sizeof version) ||
        !image_version_parse(version, &upgrade->version) ||
        !cbor_copy_text(&fields[HARDWARE], upgrade->hardware_id, sizeof upgrade->hardware_id)) {
        return false;
    }
    upgrade->id = (uint32_t)fields[ID].number;
    upgrade->size = (uint32_t)fields[SIZE].number;
    upgrade->security_counter = (uint32_t)fields[COUNTER].number;
    memcpy(upgrade->digest, fields[DIGEST].data, sizeof upgrade->digest);
    memcpy(upgrade->signature, fields[SIGNATURE].data, sizeof upgrade->signature);
    memcpy(upgrade->backup, fields[BACKUP].data, sizeof upgrade->backup);
    return true;
}

void maps_answer_decision(struct coap_builder *reply, enum result result, uint64_t needed,
                          uint64_t possible, const char *text) {
    uint8_t payload[160];
    struct cbor_encoder map;
    cbor_encoder_init(&map, payload, sizeof payload);
    cbor_put_map(&map, 4);
    cbor_pair_uint(&map, 1, result);
    cbor_pair_uint(&map, 2, needed);
    cbor_pair_uint(&map, 3, possible);
    cbor_pair_text(&map, 4, text);
    coap_build_code(reply, COAP_CHANGED);
    coap_build_cbor(reply, payload, cbor_encoder_finish(&map));
}

void maps_answer_status(struct coap_builder *reply, enum update_phase phase, uint32_t id,
                        uint32_t received, uint32_t size) {
    uint8_t payload[48];
    struct cbor_encoder map;
    cbor_encoder_init(&map, payload, sizeof payload);
    cbor_put_map(&map, 4);
    cbor_pair_uint(&map, 1, phase);
    cbor_pair_uint(&map, 2, id);
    cbor_pair_uint(&map, 3, received);
    cbor_pair_uint(&map, 4, size);
    coap_build_code(reply, COAP_CONTENT);
    coap_build_cbor(reply, payload, cbor_encoder_finish(&map));
}
