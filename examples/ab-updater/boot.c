/* Starts the newest whole image. One that has not confirmed itself is started once. */
#include "image.h"

static bool may_start(uint32_t slot) {
    return image_is_whole(slot) && (was_confirmed(slot) || !was_tried(slot));
}

static uint32_t choose_slot(void) {
    const bool a = may_start(SLOT_A);
    const bool b = may_start(SLOT_B);
    if (a && b) {
        return header_of(SLOT_A)->version > header_of(SLOT_B)->version ? SLOT_A : SLOT_B;
    }
    return a ? SLOT_A : b ? SLOT_B : 0;
}

int main(void) {
    uart_start();
    const uint32_t slot = choose_slot();
    if (slot == 0) {
        print("boot: no image\r\n");
        for (;;) {
            uart_get();
        }
    }
    if (!was_confirmed(slot)) {
        set_mark(slot, TRIED);
    }
    start_program(slot);
    return 0;
}
