/* Serial lines between a UART and the host. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "core.h"
#include "grow.h"

void mcu_add_line(struct mcu *m, struct line *l, struct device *uart) {
    assert(m->line_count < MOST_LINES);
    memset(l, 0, sizeof *l);
    l->device = uart;
    l->watched = l->idle = NEVER;
    m->lines[m->line_count++] = l;
}

uint64_t line_next(const struct line *l) {
    return l->from_host.count ? l->from_host.time[l->from_host.head] : NEVER;
}

uint8_t line_take(struct mcu *m, struct line *l) {
    assert(line_next(l) <= m->now);
    (void)m;
    uint8_t byte = l->from_host.data[l->from_host.head];
    queue_drop(&l->from_host, 1);
    return byte;
}

void line_keep(struct mcu *m, const struct line *l, unsigned byte, uint64_t done) {
    if (m->joins) {
        m->sent = grown(m->sent, &m->sent_capacity, m->sent_count + 1, sizeof *m->sent);
        m->sent[m->sent_count++] = (struct sent){done, l, byte};
    }
}

void line_send(struct mcu *m, struct line *l, uint8_t byte, uint64_t done) {
    if (m->stuck) {
        return;
    }
    queue_put(&l->to_host, byte, done);
    line_keep(m, l, byte, done);
    l->idle = done;
    if (byte == '\n' && l->watched == NEVER) {
        l->watched = done;
    }
    m->end = sooner(m->end, sooner(l->watched, l->idle));
}

bool line_shown(struct mcu *m, struct line *l) {
    bool shown = l->watched <= m->now || l->idle <= m->now;
    l->watched = l->watched <= m->now ? NEVER : l->watched;
    l->idle = l->idle <= m->now ? NEVER : l->idle;
    return shown;
}

/* What is not finished is lost: on its way to the UART, and in it. */
void line_reset(struct mcu *m, struct line *l) {
    struct byte_queue *q = &l->to_host;
    while (q->count && q->time[q->head + q->count - 1] > m->now) {
        q->count--;
    }
    l->from_host.head = l->from_host.count = 0;
    l->last = 0;
    l->watched = l->idle = NEVER;
}

void line_forget(struct line *l) {
    l->to_host.head = l->to_host.count = 0;
    l->from_host.head = l->from_host.count = 0;
    l->last = 0;
    l->overruns = 0;
    l->watched = l->idle = NEVER;
}

void line_free(struct line *l) {
    free(l->from_host.data);
    free(l->from_host.time);
    free(l->to_host.data);
    free(l->to_host.time);
}

size_t mcu_lines(const struct mcu *m) {
    return m->line_count;
}

void mcu_line_push(struct mcu *m, unsigned line, const uint8_t *data, size_t length) {
    enum { BYTE_NS_115200 = 86806 }; /* 8N1, until the firmware says */
    assert(line < m->line_count && (data || !length));
    struct line *l = m->lines[line];
    if (!m->powered) {
        return;
    }
    for (size_t i = 0; i < length; i++) {
        l->last = later(l->last, m->now) + (l->byte_ns ? l->byte_ns : (uint64_t)BYTE_NS_115200);
        queue_put(&l->from_host, data[i], l->last);
        line_keep(m, l, data[i] | FROM_HOST, l->last);
    }
    if (l->device) {
        mcu_look_again(m, l->device);
    }
}

size_t mcu_line_take(struct mcu *m, unsigned line, uint8_t *data, size_t capacity) {
    assert(line < m->line_count);
    return queue_take(&m->lines[line]->to_host, m->now, data, capacity);
}

size_t mcu_line_overruns(const struct mcu *m, unsigned line) {
    assert(line < m->line_count);
    return m->lines[line]->overruns;
}
