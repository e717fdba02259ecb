#include "app/registration.h"

#include "app/identity.h"
#include "app/verdict.h"
#include "link/radio.h"

void registration_describe(struct registration *registration) {
    const struct identity *me = identity();
    const struct update_summary summary = verdict_summary();
    *registration = (struct registration){
        .serial = me->terminal.serial,
        .hardware_id = me->terminal.hardware_id,
        .name = me->name,
        .version = me->full_version,
        .build_time = me->build_time,
        .digest = me->digest,
        .state = TERMINAL_RUNS,
        .last_id = summary.last_id,
        .last_result = summary.last_result,
        .security_counter = summary.security_counter,
    };
}

void registration_send_soon(void) {
    radio_register(0);
}
