#include "app/identity.h"

#include <string.h>

#include "board/system.h"
#include "board/terminal_id.h"
#include "board_map.h"

static struct identity me;

void identity_shorten_version(char *version) {
    size_t length = strlen(version);
    if (length > 2 && strcmp(version + length - 2, "+0") == 0) {
        version[length - 2] = '\0';
    }
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
    const char *problem = terminal_id_read(&me.terminal) ? NULL : "no valid identity";
    int error = read_image();
    return error == IMAGE_OK ? problem : image_error_text(error);
}

const struct identity *identity(void) {
    return &me;
}
