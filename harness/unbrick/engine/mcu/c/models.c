/* The models by their names. */
#include "models.h"

#include "parts.h"

bool mcu_add_model(struct mcu *m, const char *model, const struct device_place *place) {
    (void)m;
    (void)model;
    (void)place;
    return false;
}

void mcu_add_registers(struct mcu *m, const struct register_place *registers, size_t count,
                       const struct ready_place *rules, size_t rule_count) {
    (void)rules;
    (void)rule_count;
    for (size_t i = 0; i < count; i++) {
        plain_set_reset(m, registers[i].address, registers[i].reset);
    }
}
