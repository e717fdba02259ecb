#include "app/verdict.h"

#include "app/identity.h"
#include "app/storage.h"

static struct {
    enum update_phase phase;
    uint32_t last_id;
    enum result last_result;
} verdict;

uint32_t verdict_security_counter(void) {
    uint32_t kept = storage_journal()->state.security_counter;
    uint32_t running = identity()->security_counter;
    return kept > running ? kept : running;
}

enum update_phase verdict_phase(void) {
    return verdict.phase;
}

void verdict_enter(enum update_phase phase) {
    verdict.phase = phase;
}

void verdict_end(uint32_t id, enum result result) {
    verdict.phase = UPDATE_IDLE;
    verdict.last_id = id;
    verdict.last_result = result;
}

struct update_summary verdict_summary(void) {
    return (struct update_summary){
        .phase = verdict.phase,
        .last_id = verdict.last_id,
        .last_result = verdict.last_result,
        .security_counter = verdict_security_counter(),
    };
}
