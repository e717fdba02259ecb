/* The USART of STM32F1 and F4, and that of STM32L4, G0 and H5, as a UART, without DMA, FIFO and
 * parity. Source: RM0008 chapter 27, RM0090 chapter 30, RM0351 chapter 40. The line's speed is the
 * host's: BRR is not looked at. */
#include "devices.h"

/* The registers by what they do. Those of the first kind are in this order. */
enum { SR, DR, BRR, CR1, CR2, CR3, GTPR, REGISTERS, TDR, ICR, RQR, NONE };
/* Of the newer kind: RM0351, 40.8. */
enum { DR_OFFSET = 0x04, TDR_OFFSET = 0x28, OFFSETS = 11 };
static const uint8_t NEWER[OFFSETS] = {CR1, CR2, CR3, BRR, GTPR, NONE, RQR, SR, ICR, DR, TDR};
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
    CR1_UE_OLDER = 1u << 13,
    CR1_UE_NEWER = 1u << 0
};
enum { SR_TEACK = 1u << 21, SR_REACK = 1u << 22, CR3_OVRDIS = 1u << 12, RQR_RXFRQ = 1u << 3 };
#define SR_RESET ((uint32_t)SR_TC | SR_TXE)
#define SR_OF_READING ((uint32_t)SR_ORE | SR_IDLE) /* cleared by reading SR, then DR */
#define FRAME_BITS 10u                             /* 8N1 */

struct usart {
    struct device device;
    struct line line;
    uint32_t interrupt;
    uint32_t registers[REGISTERS]; /* SR without TXE; DR: the byte that came */
    uint64_t sent;                 /* when all bytes will have been sent */
    uint64_t idle;                 /* when the line has been idle for a frame; NEVER: it was told */
    uint32_t seen;                 /* of SR, when it was last read */
    bool newer;
    uint32_t ue; /* in CR1 */
};

static uint32_t *at(struct usart *u, uint32_t reg) {
    return &u->registers[reg];
}

/* Which register is at an offset. */
static uint32_t find_register(const struct usart *u, uint32_t offset) {
    uint32_t number = offset / 4;
    if (u->newer) {
        return number < OFFSETS ? NEWER[number] : (uint32_t)NONE;
    }
    return number < REGISTERS ? number : (uint32_t)NONE;
}

/* DR is free as soon as its byte is being shifted out. */
static bool is_free(struct mcu *m, const struct usart *u) {
    return u->sent <= mcu_now(m) + u->line.byte_ns;
}

static bool is_on(struct usart *u, uint32_t direction) {
    return *at(u, CR1) & u->ue && *at(u, CR1) & direction;
}

static uint32_t status(struct mcu *m, struct usart *u) {
    uint32_t sr = *at(u, SR) | (is_free(m, u) ? (uint32_t)SR_TXE : 0);
    if (u->newer) {
        sr |= (is_on(u, CR1_TE) ? (uint32_t)SR_TEACK : 0) | (is_on(u, CR1_RE) ? SR_REACK : 0);
    }
    return sr;
}

static void show(struct mcu *m, struct usart *u) {
    uint32_t sr = status(m, u), cr1 = *at(u, CR1);
    bool high = (sr & SR_TXE && cr1 & CR1_TXEIE) || (sr & SR_TC && cr1 & CR1_TCIE) ||
                (sr & (SR_RXNE | SR_ORE) && cr1 & CR1_RXNEIE) || (sr & SR_IDLE && cr1 & CR1_IDLEIE);
    nvic_set_line(m, u->interrupt, high && cr1 & u->ue);
}

/* A byte that comes while one is waiting in DR is lost (RM0008, 27.3.3); without overrun detection,
 * which the newer kind can do without, it takes that one's place. */
static void receive(struct mcu *m, struct usart *u, uint64_t when) {
    uint8_t byte = line_take(m, &u->line);
    if (!is_on(u, CR1_RE)) {
        return;
    }
    u->idle = when + u->line.byte_ns;
    bool lost = *at(u, SR) & SR_RXNE;
    u->line.overruns += lost;
    if (lost && !(u->newer && *at(u, CR3) & CR3_OVRDIS)) {
        *at(u, SR) |= SR_ORE;
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
        fault(m, FAULT_UART_LOST, u->device.base + (u->newer ? (uint32_t)TDR_OFFSET : DR_OFFSET),
              byte);
        return;
    }
    if (u->newer || u->seen & SR_TC) {
        *at(u, SR) &= ~(uint32_t)SR_TC;
    }
    u->sent = later(u->sent, mcu_now(m)) + u->line.byte_ns;
    line_send(m, &u->line, byte, u->sent);
}

static uint32_t read(struct mcu *m, struct device *d, uint32_t offset, unsigned size) {
    struct usart *u = (struct usart *)d;
    uint32_t reg = find_register(u, offset);
    if (reg == SR) {
        u->seen = status(m, u);
        return part_of(u->seen, offset, size);
    }
    if (reg == DR) {
        *at(u, SR) &= ~(SR_RXNE | (u->newer ? 0 : u->seen & SR_OF_READING));
        u->seen = 0;
        show(m, u);
    }
    return reg < REGISTERS ? part_of(*at(u, reg), offset, size)
                           : plain_read(m, d->base + offset, size);
}

static void write_status(struct usart *u, uint32_t offset, unsigned size, uint32_t value) {
    if (!u->newer) { /* RXNE and TC are cleared by writing 0 */
        *at(u, SR) &= with_part(UINT32_MAX, offset, size, value) | ~((uint32_t)SR_RXNE | SR_TC);
    }
}

static void write(struct mcu *m, struct device *d, uint32_t offset, unsigned size, uint32_t value) {
    struct usart *u = (struct usart *)d;
    uint32_t reg = find_register(u, offset);
    if (reg == NONE) {
        plain_write(m, d->base + offset, size, value);
    } else if (reg == SR) {
        write_status(u, offset, size, value);
    } else if (reg == ICR) {
        *at(u, SR) &= ~(value & ((uint32_t)SR_ORE | SR_IDLE | SR_TC));
    } else if (reg == RQR) {
        *at(u, SR) &= ~(value & RQR_RXFRQ ? (uint32_t)SR_RXNE : 0);
    } else if (reg == TDR || (reg == DR && !u->newer)) {
        send(m, u, (uint8_t)value);
        u->seen = 0;
    } else if (reg != DR) {
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

static void add(struct mcu *m, const struct device_place *place, bool newer) {
    assert(place->baud && place->interrupt != NO_INTERRUPT);
    struct usart *u = device_memory(m, sizeof *u);
    u->device = (struct device){.base = place->base,
                                .size = 0x400,
                                .read = read,
                                .write = write,
                                .reset = reset,
                                .next = next,
                                .settle = settle,
                                .free = device_free};
    u->interrupt = place->interrupt;
    u->newer = newer;
    u->ue = newer ? CR1_UE_NEWER : CR1_UE_OLDER;
    mcu_add_device(m, &u->device);
    mcu_add_line(m, &u->line, &u->device);
    u->line.byte_ns = clock_ns(FRAME_BITS, place->baud);
}

void uart_stm32_add(struct mcu *m, const struct device_place *place) {
    add(m, place, false);
}

void uart_stm32v2_add(struct mcu *m, const struct device_place *place) {
    add(m, place, true);
}
