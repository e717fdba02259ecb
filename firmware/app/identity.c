#include "identity.h"

#include <string.h>

#include "board/system.h"
#include "board_map.h"
#include "lib/cbor.h"
#include "lib/crc.h"

#define IDENTITY_MAGIC "UNBRKID1"
#define IDENTITY_MAX_LENGTH 256u

static struct identity me;

static uint32_t little_endian(const uint8_t *bytes) {
    return bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 | (uint32_t)bytes[3] << 24;
}

void identity_shorten_version(char *version) {
    size_t length = strlen(version);
    if (length > 2 && strcmp(version + length - 2, "+0") == 0) {
        version[length - 2] = '\0';
    }
}

static bool read_partition(void) {
    const uint8_t *partition = system_nor(BOARD_IDENTITY_OFFSET);
    const uint8_t *map = partition + 16;
    uint32_t length = little_endian(partition + 8);
    if (memcmp(partition, IDENTITY_MAGIC, 8) != 0 || length > IDENTITY_MAX_LENGTH ||
        crc32(0, map, length) != little_endian(partition + 12)) {
        return false;
    }
    struct cbor_field fields[] = {
        {.key = 1, .kind = CBOR_TEXT, .required = true, .minimum = 1, .maximum = 31},
        {.key = 2, .kind = CBOR_TEXT, .required = true, .minimum = 1, .maximum = 31},
    };
    return cbor_decode_map(map, length, fields, 2) == CBOR_OK &&
           cbor_copy_text(&fields[0], me.serial, sizeof me.serial) &&
           cbor_copy_text(&fields[1], me.hardware_id, sizeof me.hardware_id);
}

static int read_image(void) {
    struct image image;
    int error = image_parse(&image, system_nor(BOARD_APPLICATION_OFFSET), BOARD_APPLICATION_SIZE);
    if (error != IMAGE_OK) {
        return error;
    }
    image_text_copy(&image.name, me.name, sizeof me.name);
    image_text_copy(&image.build_time, me.build_time, sizeof me.build_time);
    image_version_text(&image.version, me.full_version);
    memcpy(me.version, me.full_version, sizeof me.version);
    identity_shorten_version(me.version);
    memcpy(me.digest, image.digest, sizeof me.digest);
    me.security_counter = image.security_counter;
    return IMAGE_OK;
}

const char *identity_read(void) {
    const char *problem = NULL;
    if (!read_partition()) {
        memcpy(me.serial, "unknown", sizeof "unknown");
        memcpy(me.hardware_id, BOARD_HARDWARE_ID, sizeof BOARD_HARDWARE_ID);
        problem = "no valid identity";
    }
    int error = read_image();
    return error == IMAGE_OK ? problem : image_error_text(error);
}

const struct identity *identity(void) {
    return &me;
}
