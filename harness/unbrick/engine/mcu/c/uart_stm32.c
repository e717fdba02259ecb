/* The USART of STM32F1 and F4 as a UART, without DMA and parity. Source: RM0008 chapter 27, RM0090
 * chapter 30. The line's speed is the host's: BRR is not looked at. */
#include "devices.h"

enum { SR = 0x00, DR = 0x04, BRR = 0x08, CR1 = 0x0c, CR2 = 0x10, CR3 = 0x14, GTPR = 0x18 };
enum {
    SR_ORE = 1u << 3,
    SR_IDLE = 1u << 4,
    SR_RXNE = 1u << 5,
    SR_TC = 1u << 6,
    SR_TXE = 1u << 7,
};
enum {
    CR1_RE = 1u << 2,
    CR1_TE = 1u << 3,
    CR1_IDLEIE = 1u << 4,
    CR1_RXNEIE = 1u << 5,
    CR1_TCIE = 1u << 6,
    CR1_TXEIE = 1u << 7,
    CR1_UE = 1u << 13
};
#define SR_RESET ((uint32_t)SR_TC | SR_TXE)
#define SR_OF_READING ((uint32_t)SR_ORE | SR_IDLE) /* cleared by reading SR, then DR */
#define FRAME_BITS 10u                             /* 8N1 */
#define REGISTERS 7u

struct usart {
    struct device device;
    struct line line;
    uint32_t interrupt;
    uint32_t registers[REGISTERS]; /* SR without TXE; DR: the byte that came */
    uint64_t sent;                 /* when all bytes will have been sent */
    uint64_t idle;                 /* when the line has been idle for a frame; NEVER: it was told */
    uint32_t seen;                 /* of SR, when it was last read */
};

static uint32_t *at(struct usart *u, uint32_t offset) {
    return &u->registers[offset / 4];
}

/* DR is free as soon as its byte is being shifted out. */
static bool is_free(struct mcu *m, const struct usart *u) {
    return u->sent <= mcu_now(m) + u->line.byte_ns;
}

static uint32_t status(struct mcu *m, struct usart *u) {
    return *at(u, SR) | (is_free(m, u) ? (uint32_t)SR_TXE : 0);
}

static bool is_on(struct usart *u, uint32_t direction) {
    return *at(u, CR1) & CR1_UE && *at(u, CR1) & direction;
}

static void show(struct mcu *m, struct usart *u) {
    uint32_t sr = status(m, u), cr1 = *at(u, CR1);
    bool high = (sr & SR_TXE && cr1 & CR1_TXEIE) || (sr & SR_TC && cr1 & CR1_TCIE) ||
                (sr & (SR_RXNE | SR_ORE) && cr1 & CR1_RXNEIE) || (sr & SR_IDLE && cr1 & CR1_IDLEIE);
    nvic_set_line(m, u->interrupt, high && cr1 & CR1_UE);
}

/* A byte that comes while one is waiting in DR is lost (RM0008, 27.3.3). */
static void receive(struct mcu *m, struct usart *u, uint64_t when) {
    uint8_t byte = line_take(m, &u->line);
    if (!is_on(u, CR1_RE)) {
        return;
    }
    u->idle = when + u->line.byte_ns;
    if (*at(u, SR) & SR_RXNE) {
        *at(u, SR) |= SR_ORE;
        u->line.overruns++;
    } else {
        *at(u, DR) = byte;
        *at(u, SR) |= SR_RXNE;
    }
}

static void settle(struct mcu *m, struct device *d) {
    struct usart *u = (struct usart *)d;
    for (;;) {
        uint64_t when = line_next(&u->line);
        if (u->idle <= mcu_now(m) && u->idle < when) {
            u->idle = NEVER;
            *at(u, SR) |= SR_IDLE;
        }
        if (when > mcu_now(m)) {
            break;
        }
        receive(m, u, when);
    }
    if (u->sent && u->sent <= mcu_now(m)) {
        u->sent = 0;
        *at(u, SR) |= SR_TC;
    }
    show(m, u);
}

static void send(struct mcu *m, struct usart *u, uint8_t byte) {
    if (!is_on(u, CR1_TE) || !is_free(m, u)) {
        fault(m, FAULT_UART_LOST, u->device.base + DR, byte);
        return;
    }
    if (u->seen & SR_TC) {
        *at(u, SR) &= ~(uint32_t)SR_TC;
    }
    u->sent = later(u->sent, mcu_now(m)) + u->line.byte_ns;
    line_send(m, &u->line, byte, u->sent);
}

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    struct usart *u = (struct usart *)d;
    uint32_t reg = offset & ~3u;
    if (reg == SR) {
        u->seen = status(m, u);
        return part_of(u->seen, offset, size);
    }
    if (reg == DR) {
        *at(u, SR) &= ~(SR_RXNE | (u->seen & SR_OF_READING));
        u->seen = 0;
        show(m, u);
    }
    return reg / 4 < REGISTERS ? part_of(*at(u, reg), offset, size)
                               : plain_read(m, d->base + offset, size);
}

static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct usart *u = (struct usart *)d;
    uint32_t reg = offset & ~3u;
    if (reg / 4 >= REGISTERS) {
        plain_write(m, d->base + offset, size, value);
    } else if (reg == SR) { /* RXNE and TC are cleared by writing 0 */
        *at(u, SR) &= with_part(UINT32_MAX, offset, size, value) | ~((uint32_t)SR_RXNE | SR_TC);
    } else if (reg == DR) {
        send(m, u, (uint8_t)value);
        u->seen = 0;
    } else {
        *at(u, reg) = with_part(*at(u, reg), offset, size, value);
    }
    show(m, u);
}

static void reset(struct mcu *m, struct device *d, enum reset_kind kind) {
    struct usart *u = (struct usart *)d;
    (void)kind;
    memset(u->registers, 0, sizeof u->registers);
    *at(u, SR) = SR_RESET & ~(uint32_t)SR_TXE;
    u->sent = u->seen = 0;
    u->idle = NEVER;
    show(m, u);
}

static uint64_t next(struct mcu *m, struct device *d) {
    struct usart *u = (struct usart *)d;
    uint32_t cr1 = *at(u, CR1);
    uint64_t when = NEVER;
    if (cr1 & CR1_TXEIE && !is_free(m, u)) {
        when = u->sent - u->line.byte_ns;
    }
    if (cr1 & CR1_TCIE && u->sent) {
        when = sooner(when, u->sent);
    }
    if (cr1 & CR1_RXNEIE) {
        when = sooner(when, line_next(&u->line));
    }
    if (cr1 & CR1_IDLEIE) { /* each byte moves it */
        when = sooner(when, sooner(u->idle, line_next(&u->line)));
    }
    return when;
}

void uart_stm32_add(struct mcu *m, const struct device_place *place) {
    assert(place->baud && place->interrupt != NO_INTERRUPT);
    struct usart *u = device_memory(sizeof *u);
    u->device = (struct device){.base = place->base,
                                .size = 0x400,
                                .read = read,
                                .write = write,
                                .reset = reset,
                                .next = next,
                                .settle = settle,
                                .free = device_free};
    u->interrupt = place->interrupt;
    mcu_add_device(m, &u->device);
    mcu_add_line(m, &u->line, &u->device);
    u->line.byte_ns = clock_ns(FRAME_BITS, place->baud);
}
