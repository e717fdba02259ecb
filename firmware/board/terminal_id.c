#include "board/terminal_id.h"

#include <string.h>

#include "board/system.h"
#include "board_map.h"
#include "lib/cbor.h"
#include "lib/crc.h"

#define MAGIC "UNBRKID1"
#define HEADER_SIZE 16u
#define LENGTH_MAX 256u

static uint32_t little_endian(const uint8_t *bytes) {
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

enum { SERIAL, HARDWARE_ID, KEY, FIELDS };

static bool read_partition(struct cbor_field fields[FIELDS]) {
    const uint8_t *const start = system_nor(BOARD_IDENTITY_OFFSET);
    const uint32_t length = little_endian(start + 8);
    if (memcmp(start, MAGIC, 8) != 0 || length > LENGTH_MAX ||
        crc32(0, start + HEADER_SIZE, length) != little_endian(start + 12)) {
        return false;
    }
    fields[SERIAL] = (struct cbor_field){
        .key = 1, .kind = CBOR_TEXT, .required = true, .minimum = 1, .maximum = 31};
    fields[HARDWARE_ID] = (struct cbor_field){
        .key = 2, .kind = CBOR_TEXT, .required = true, .minimum = 1, .maximum = 31};
    fields[KEY] = (struct cbor_field){
        .key = 3, .kind = CBOR_BYTES, .minimum = TERMINAL_KEY_SIZE, .maximum = TERMINAL_KEY_SIZE};
    return cbor_decode_map(start + HEADER_SIZE, length, fields, FIELDS) == CBOR_OK;
}

bool terminal_id_read(struct terminal_id *id) {
    struct cbor_field fields[FIELDS];
    if (read_partition(fields) && cbor_copy_text(&fields[SERIAL], id->serial, sizeof id->serial) &&
        cbor_copy_text(&fields[HARDWARE_ID], id->hardware_id, sizeof id->hardware_id)) {
        return true;
    }
    memcpy(id->serial, "unknown", sizeof "unknown");
    memcpy(id->hardware_id, BOARD_HARDWARE_ID, sizeof BOARD_HARDWARE_ID);
    return false;
}

const uint8_t *terminal_id_key(void) {
    struct cbor_field fields[FIELDS];
    return read_partition(fields) ? fields[KEY].data : NULL;
}
