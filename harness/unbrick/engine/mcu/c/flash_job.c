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
        check_erase(m, job->flash, job->offset, job->length);
    } else {
        for (uint32_t i = 0; i < job->length; i++) {
            cells[i] &= job->data[i];
        }
        check_program(job->flash, job->offset, job->data, job->length);
    }
    flash_changed(m, job->flash->first + job->offset, job->length);
    if (job->more) {
        memset(job->more->cells, 0xff, job->more->size);
        note_erase(m, job->more->first, job->more->size);
        flash_changed(m, job->more->first, job->more->size);
    }
}

static bool stands_still(struct mcu *m, const struct flash_job *job) {
    uint32_t at = 0;
    if (job->flash->apart || job->flash->outside) {
        return false;
    }
    const struct flash *f = flash_of_code(m, &at);
    if (!f || !job->bank || f != job->flash) {
        return f != NULL;
    }
    uint32_t bank = at - at % job->bank;
    return job->offset < bank + job->bank && bank < job->offset + job->length;
}

bool job_begin(struct mcu *m, struct flash_job *job, uint32_t kind, struct flash *flash,
               uint32_t offset, uint32_t length, uint64_t ns) {
    assert(!job->busy);
    job->kind = kind;
    job->flash = flash;
    job->offset = offset;
    job->length = length;
    assert(offset < flash->size && length <= flash->size - offset);
    assert(kind != OP_PROGRAM || length <= OPERATION_MAX);
    /* Regions lie one after the other in the flash image, so both are one range. */
    uint32_t whole = length + (job->more ? job->more->size : 0);
    const uint8_t *data = kind == OP_PROGRAM ? job->data : NULL;
    if (!flash_begin(m, kind, flash->first + offset, whole, data, ns)) {
        return false;
    }
    job->start = mcu_now(m);
    job->end = job->start + ns;
    job->busy = true;
    if (brown_out_is_due(m)) {
        mcu_elapse(m, ns / 2);
        mcu_brown_out(m); /* which tears it, unless it is in a chip of its own */
        return job->busy;
    }
    if (stands_still(m, job)) {
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

void job_suspend(struct mcu *m, struct flash_job *job, struct flash_job *suspended,
                 uint64_t latency_ns) {
    assert(job->busy && !suspended->busy);
    *suspended = *job;
    job->busy = false;
    suspended->start = mcu_now(m) - job->start; /* how long it has lasted */
    suspended->end = job->end - mcu_now(m) + latency_ns;
}

/* As if it had begun so long ago as it has lasted. */
void job_resume(struct mcu *m, struct flash_job *job, struct flash_job *suspended) {
    assert(suspended->busy && !job->busy);
    uint64_t lasted = suspended->start, left = suspended->end, now = mcu_now(m);
    *job = *suspended;
    job->start = now - (lasted < now ? lasted : now);
    job->end = now + left;
    suspended->busy = false;
}

bool job_has(const struct flash_job *job, uint32_t offset) {
    return job->busy && offset >= job->offset && offset - job->offset < job->length;
}

/* A number that looks random, and is the same for the same cell (xorshift). */
static uint32_t scatter(uint32_t seed) {
    seed = seed * 2654435761u + 1;
    seed ^= seed >> 13;
    seed ^= seed << 7;
    return seed ^ seed >> 17;
}

/* `done` of 256 of the bits of a range, at `place` in the flash image, have moved. */
static void tear_range(uint8_t *cells, uint32_t place, uint32_t length, const uint8_t *data,
                       uint64_t done) {
    for (uint32_t i = 0; i < length; i++) {
        uint8_t target = data ? cells[i] & data[i] : 0xff;
        for (unsigned bit = 0; bit < 8; bit++) {
            uint8_t mask = (uint8_t)(1u << bit);
            if ((scatter((place + i) * 8 + bit) & 0xff) < done) {
                cells[i] = (uint8_t)((cells[i] & ~mask) | (target & mask));
            }
        }
    }
}

static void tear_cells(struct mcu *m, struct flash *f, uint32_t offset, uint32_t length,
                       const struct flash_job *job) {
    uint64_t done = (mcu_now(m) - job->start) * 256 / later(job->end - job->start, 1);
    const uint8_t *data = job->kind == OP_PROGRAM ? job->data : NULL;
    tear_range(f->cells + offset, f->first + offset, length, data, done);
    if (f->check) {
        uint8_t checks[OPERATION_MAX];
        uint32_t first = offset / f->check_unit, count = length / f->check_unit;
        if (data) {
            check_find(f, data, length, checks);
        }
        tear_range(f->check + first, f->first + f->size + first, count, data ? checks : NULL, done);
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
