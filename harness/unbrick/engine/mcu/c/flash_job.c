/* An operation of a flash controller, from its begin to its end. */
#include "devices.h"

bool is_blank(const uint8_t *cells, uint32_t length) {
    for (uint32_t i = 0; i < length; i++) {
        if (cells[i] != 0xff) {
            return false;
        }
    }
    return true;
}

static void change(struct mcu *m, struct flash_job *job) {
    uint8_t *cells = job->flash->cells + job->offset;
    if (job->kind == OP_ERASE) {
        memset(cells, 0xff, job->length);
        note_erase(m, job->flash->first + job->offset, job->length);
    } else {
        for (uint32_t i = 0; i < job->length; i++) {
            cells[i] &= job->data[i];
        }
    }
    flash_changed(m, job->flash->first + job->offset, job->length);
    if (job->more) {
        memset(job->more->cells, 0xff, job->more->size);
        note_erase(m, job->more->first, job->more->size);
        flash_changed(m, job->more->first, job->more->size);
    }
}

bool job_begin(struct mcu *m, struct flash_job *job, uint64_t ns) {
    assert(!job->busy);
    assert(job->offset < job->flash->size && job->length <= job->flash->size - job->offset);
    assert(job->kind != OP_PROGRAM || job->length <= OPERATION_MAX);
    /* Regions lie one after the other in the flash image, so both are one range. */
    uint32_t length = job->length + (job->more ? job->more->size : 0);
    const uint8_t *data = job->kind == OP_PROGRAM ? job->data : NULL;
    if (!flash_begin(m, job->kind, job->flash->first + job->offset, length, data, ns)) {
        return false;
    }
    job->start = mcu_now(m);
    job->end = job->start + ns;
    job->busy = true;
    if (runs_from_flash(m)) {
        mcu_elapse(m, ns);
    }
    return true;
}

bool job_settle(struct mcu *m, struct flash_job *job) {
    if (!job->busy || mcu_now(m) < job->end) {
        return false;
    }
    job->busy = false;
    change(m, job);
    job->more = NULL;
    return true;
}

void job_wait(struct mcu *m, struct flash_job *job) {
    if (job->busy && mcu_now(m) < job->end) {
        mcu_elapse(m, job->end - mcu_now(m));
    }
}

uint64_t job_next(const struct flash_job *job) {
    return job->busy ? job->end : NEVER;
}

void job_reset(struct mcu *m, struct flash_job *job, enum reset_kind kind) {
    if (kind != RESET_POWER) {
        job_wait(m, job);
        job_settle(m, job);
    }
    job->busy = false;
    job->more = NULL;
}

/* A number that looks random, and is the same for the same cell (xorshift). */
static uint32_t scatter(uint32_t seed) {
    seed = seed * 2654435761u + 1;
    seed ^= seed >> 13;
    seed ^= seed << 7;
    return seed ^ seed >> 17;
}

static void tear_cells(struct mcu *m, struct flash *f, uint32_t offset, uint32_t length,
                       const struct flash_job *job) {
    uint64_t done = (mcu_now(m) - job->start) * 256 / later(job->end - job->start, 1);
    for (uint32_t i = 0; i < length; i++) {
        uint8_t *cell = f->cells + offset + i;
        uint8_t target = job->kind == OP_PROGRAM ? *cell & job->data[i] : 0xff;
        for (unsigned bit = 0; bit < 8; bit++) {
            uint8_t mask = (uint8_t)(1u << bit);
            if ((scatter((f->first + offset + i) * 8 + bit) & 0xff) < done) {
                *cell = (uint8_t)((*cell & ~mask) | (target & mask));
            }
        }
    }
    flash_changed(m, f->first + offset, length);
}

void job_tear(struct mcu *m, struct flash_job *job) {
    if (!job->busy || job_settle(m, job)) {
        return;
    }
    tear_cells(m, job->flash, job->offset, job->length, job);
    if (job->more) {
        tear_cells(m, job->more, 0, job->more->size, job);
    }
    job->busy = false;
    job->more = NULL;
}
