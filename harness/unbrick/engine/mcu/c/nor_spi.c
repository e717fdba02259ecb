/* A NOR flash on SPI with the commands that most have: pages, sectors of 4 KiB, blocks of 32 and 64
 * KiB, status register with protection. Sources: the data sheets of W25Q80DV and W25Q16JV. What the
 * chip ignores is told as a fault of the firmware. The status register lies in a region of its own,
 * inverted, so that it is 0 where it is blank.
 *
 * Three bytes of address reach 16 MiB. A larger chip has a mode with four, a register with the
 * fourth one, and commands that always take four. Sources: the data sheet of W25Q257FV, sections
 * 7.1, 7.2, 8.1 and 8.2, whose registers W25Q256JV has, too; JESD216B for what SFDP says. */
#include "devices.h"

enum {
    WRITE_STATUS = 0x01,
    PAGE_PROGRAM = 0x02,
    READ = 0x03,
    WRITE_DISABLE = 0x04,
    READ_STATUS = 0x05,
    WRITE_ENABLE = 0x06,
    FAST_READ = 0x0b,
    WRITE_STATUS_3 = 0x11,
    READ_STATUS_3 = 0x15,
    ERASE_SECTOR = 0x20,
    READ_STATUS_2 = 0x35,
    ERASE_32K = 0x52,
    ERASE_CHIP_2 = 0x60,
    ENABLE_RESET = 0x66,
    RESET = 0x99,
    WRITE_STATUS_2 = 0x31,
    READ_DUAL = 0x3b,
    READ_UNIQUE_ID = 0x4b,
    READ_SFDP = 0x5a,
    READ_QUAD = 0x6b,
    SUSPEND = 0x75,
    RESUME = 0x7a,
    READ_ID = 0x9f,
    RELEASE = 0xab,    /* from power-down */
    ENTER_FOUR = 0xb7, /* bytes of address */
    POWER_DOWN = 0xb9,
    READ_DUAL_IO = 0xbb,
    WRITE_UPPER = 0xc5, /* byte of the address */
    ERASE_CHIP = 0xc7,
    READ_UPPER = 0xc8,
    ERASE_64K = 0xd8,
    EXIT_FOUR = 0xe9,
    READ_QUAD_IO = 0xeb,
    END_MODE = 0xff /* the mode in which reads have no command; otherwise it does nothing */
};
enum { SR_BUSY = 1u << 0, SR_WEL = 1u << 1, SR_TB = 1u << 5, SR_SEC = 1u << 6 };
enum {
    SR_BP_SHIFT = 2,
    SR_KEPT = 0xfc,
    SR2_QE = 1u << 1,
    SR2_KEPT = 0x7b,
    SR2_SUS = 1u << 7,
    SR3_ADS = 1u << 0, /* addresses have four bytes */
    SR3_ADP = 1u << 1, /* and have them as power comes */
    SR3_KEPT = 0xe2,
    STATUS_SIZE = 4
};
enum { SUSPEND_NS = 20000 };                       /* what each costs the operation */
enum { MODE_MASK = 0x30, MODE_CONTINUOUS = 0x20 }; /* behind the address of a read */
enum { UNIQUE_ID_SIZE = 8 };
enum { PAGE = 256, SECTOR = 4096, SFDP_ADDRESS = 3, NEAR = 1 << 24 };

/* What commands with four bytes of address do, by their bits in the table of JESD216. */
enum { FOUR_READ = 0, FOUR_SECTOR = 9, FOUR_32K = 10, FOUR_64K = 11, FOUR_COMMANDS = 12 };
static const struct {
    uint8_t command, does;
} with_four[FOUR_COMMANDS] = {
    [FOUR_READ] = {0x13, READ},     [1] = {0x0c, FAST_READ},
    [6] = {0x12, PAGE_PROGRAM},     [FOUR_SECTOR] = {0x21, ERASE_SECTOR},
    [FOUR_32K] = {0x5c, ERASE_32K}, [FOUR_64K] = {0xdc, ERASE_64K},
};

struct nor {
    struct bus_chip chip;
    struct flash flash, status;
    struct flash_job job, suspended; /* `suspended.busy`: there is one */
    uint32_t id, program_us, sector_us, half_block_us, block_us, chip_us, status_us;
    uint32_t four_commands; /* which of `with_four` it has */
    uint8_t sent, command;  /* as it came; what it does */
    uint8_t data[PAGE], new_status, new_status_2, new_status_3, upper;
    uint32_t taken, address; /* bytes since it was selected */
    uint32_t first, end;     /* in the page, of what was given */
    bool selected, enabled, down, writes_status, may_reset;
    uint32_t address_size; /* of this command; in bytes */
    bool large;            /* three bytes of address do not reach all of it */
    bool four;             /* commands take four */
    bool tells_four;       /* SFDP has a table of `four_commands` */
    bool wide;             /* it has several data lines */
    bool quad;             /* and always four */
    bool continuous;       /* a read begins with its address */
};

static uint32_t kept_status(struct mcu *m, const struct nor *n) {
    note_cells(m, &n->status, 0, 1);
    return (uint8_t)~n->status.cells[0] & SR_KEPT;
}

static uint32_t kept_status_2(struct mcu *m, const struct nor *n) {
    note_cells(m, &n->status, 1, 1);
    return ((uint8_t)~n->status.cells[1] & SR2_KEPT) | (n->quad ? (uint32_t)SR2_QE : 0);
}

static uint32_t kept_status_3(struct mcu *m, const struct nor *n) {
    if (!n->large) {
        return 0;
    }
    note_cells(m, &n->status, 2, 1);
    return (uint8_t)~n->status.cells[2] & SR3_KEPT;
}

/* SEC, TB and BP protect a part at an end: of sectors, or of blocks of 64 KiB. A large chip has a
 * fourth bit of BP where others have TB, TB where they have SEC, and no SEC. */
static bool is_protected(struct mcu *m, const struct nor *n, uint32_t offset, uint32_t length) {
    uint32_t status = kept_status(m, n), most = n->large ? 15 : 7;
    uint32_t bp = status >> SR_BP_SHIFT & most;
    bool sectors = !n->large && status & SR_SEC, bottom = status & (n->large ? SR_SEC : SR_TB);
    uint32_t part =
        sectors ? (uint32_t)SECTOR << (bp < 4 ? bp - 1 : 3) : (uint32_t)0x10000 << (bp - 1);
    if (!bp) {
        return false;
    }
    if (bp == most || part >= n->flash.size) {
        return true;
    }
    return bottom ? offset < part : offset + length > n->flash.size - part;
}

static void refuse(struct mcu *m, const struct nor *n, uint32_t kind) {
    fault(m, kind, n->flash.first + n->address, n->sent);
}

/* The state after a reset, or as power comes. */
static void begin_addresses(struct mcu *m, struct nor *n) {
    n->four = kept_status_3(m, n) & SR3_ADP;
    n->upper = 0;
}

static void begin(struct mcu *m, struct nor *n, uint32_t kind, struct flash *flash, uint32_t offset,
                  uint32_t length, uint32_t us) {
    n->enabled = false;
    job_begin(m, &n->job, kind, flash, offset, length, (uint64_t)us * NS_PER_US);
}

static void settle(struct mcu *m, struct bus_chip *c) {
    struct nor *n = (struct nor *)c;
    if (job_settle(m, &n->job) && n->writes_status) {
        n->writes_status = false;
        memset(n->job.data, 0xff, STATUS_SIZE);
        n->job.data[0] = (uint8_t)~n->new_status;
        n->job.data[1] = (uint8_t)~n->new_status_2;
        n->job.data[2] = (uint8_t)~n->new_status_3;
        begin(m, n, OP_PROGRAM, &n->status, 0, STATUS_SIZE, n->status_us / 2);
    }
}

static void erase(struct mcu *m, struct nor *n, uint32_t size, uint32_t us) {
    uint32_t start = size == n->flash.size ? 0 : n->address - n->address % size;
    if (is_protected(m, n, start, size)) {
        refuse(m, n, FAULT_FLASH_PROTECTED);
    } else {
        begin(m, n, OP_ERASE, &n->flash, start, size, us);
    }
}

/* Ones at both ends change nothing: firmware fills a page up with them. */
static void leave_out_ones(struct nor *n) {
    while (n->first + 1 < n->end && n->data[n->first] == 0xff) {
        n->first++;
    }
    while (n->first + 1 < n->end && n->data[n->end - 1] == 0xff) {
        n->end--;
    }
}

/* Bits only become 0: no error of the chip, but then the cells do not hold what was given. */
static void program(struct mcu *m, struct nor *n) {
    leave_out_ones(n);
    uint32_t page = n->address - n->address % PAGE, at = page + n->first;
    if (is_protected(m, n, at, n->end - n->first)) {
        refuse(m, n, FAULT_FLASH_PROTECTED);
        return;
    }
    note_cells(m, &n->flash, at, n->end - n->first);
    for (uint32_t i = n->first; i < n->end; i++) {
        if (n->data[i] != 0xff && n->data[i] & ~n->flash.cells[page + i]) {
            refuse(m, n, FAULT_FLASH_DIRTY);
            break;
        }
    }
    memcpy(n->job.data, n->data + n->first, n->end - n->first);
    begin(m, n, OP_PROGRAM, &n->flash, at, n->end - n->first, n->program_us);
}

/* Operations begin as the chip is no longer selected. */
static void carry_out(struct mcu *m, struct nor *n) {
    switch (n->command) {
    case PAGE_PROGRAM:
        program(m, n);
        break;
    case ERASE_SECTOR:
        erase(m, n, SECTOR, n->sector_us);
        break;
    case ERASE_32K:
        erase(m, n, 0x8000, n->half_block_us);
        break;
    case ERASE_64K:
        erase(m, n, 0x10000, n->block_us);
        break;
    case ERASE_CHIP:
    case ERASE_CHIP_2:
        erase(m, n, n->flash.size, n->chip_us);
        break;
    default: /* the status register is erased, and then programmed */
        n->writes_status = true;
        begin(m, n, OP_ERASE, &n->status, 0, STATUS_SIZE, n->status_us / 2);
        break;
    }
}

/* How many bytes an operation has at least; 0: the command is none. */
static uint32_t bytes_of_operation(const struct nor *n, uint8_t command) {
    switch (command) {
    case PAGE_PROGRAM:
        return 1 + n->address_size + 1;
    case ERASE_SECTOR:
    case ERASE_32K:
    case ERASE_64K:
        return 1 + n->address_size;
    case ERASE_CHIP:
    case ERASE_CHIP_2:
        return 1;
    case WRITE_STATUS:
    case WRITE_STATUS_2:
        return 2;
    case WRITE_STATUS_3:
    case WRITE_UPPER:
        return n->large ? 2 : 0;
    default:
        return 0;
    }
}

static bool writes_status(uint8_t command) {
    return command == WRITE_STATUS || command == WRITE_STATUS_2 || command == WRITE_STATUS_3;
}

/* Neither an erase of all nor a write of the status can be suspended. */
static void suspend(struct mcu *m, struct nor *n) {
    bool may = n->job.busy && n->job.flash == &n->flash && n->job.length < n->flash.size;
    if (may && !n->suspended.busy) {
        job_suspend(m, &n->job, &n->suspended, SUSPEND_NS);
    } else {
        refuse(m, n, FAULT_FLASH_COMMAND);
    }
}

/* Beside an erase that is suspended, other places can be programmed. */
static bool may_begin(const struct nor *n) {
    bool programs = n->command == PAGE_PROGRAM && n->suspended.kind == OP_ERASE;
    return !n->suspended.busy || (programs && !job_has(&n->suspended, n->address));
}

/* What there is of the fourth byte of an address. */
static uint8_t upper_bits(const struct nor *n) {
    return (uint8_t)((n->flash.size - 1) >> 24);
}

static void deselect(struct mcu *m, struct nor *n) {
    uint32_t wanted = bytes_of_operation(n, n->command);
    if (n->taken == 1 && n->command == SUSPEND && !n->down) {
        suspend(m, n);
        return;
    }
    if (!n->taken || n->job.busy || n->down) {
        return;
    }
    if (n->taken == 1 && n->command == RESUME) {
        if (n->suspended.busy) {
            job_resume(m, &n->job, &n->suspended);
        } else {
            refuse(m, n, FAULT_FLASH_COMMAND);
        }
        return;
    }
    if (n->command == WRITE_ENABLE || n->command == WRITE_DISABLE) {
        n->enabled = n->command == WRITE_ENABLE;
    } else if (n->command == ENTER_FOUR || n->command == EXIT_FOUR) {
        n->four = n->large && n->command == ENTER_FOUR;
    } else if (n->command == POWER_DOWN) {
        n->down = true;
    } else if (wanted && !n->enabled) {
        refuse(m, n, FAULT_FLASH_LOCKED);
    } else if (wanted && (n->taken < wanted || (n->command != PAGE_PROGRAM && n->taken != wanted &&
                                                !writes_status(n->command)))) {
        refuse(m, n, FAULT_FLASH_COMMAND);
    } else if (n->command == WRITE_UPPER) {
        n->upper = n->data[0] & upper_bits(n);
    } else if (wanted && !may_begin(n)) {
        refuse(m, n, FAULT_FLASH_BUSY);
    } else if (wanted) {
        carry_out(m, n);
    }
}

static void select(struct mcu *m, struct bus_chip *c, bool selected) {
    struct nor *n = (struct nor *)c;
    settle(m, c);
    n->selected = selected;
    if (selected) {
        n->taken = n->address = n->end = 0;
        n->first = PAGE;
        memset(n->data, 0xff, sizeof n->data);
    } else {
        deselect(m, n);
    }
}

static bool is_read(const struct nor *n, uint8_t command) {
    bool wide = command == READ_DUAL || command == READ_DUAL_IO || command == READ_QUAD ||
                command == READ_QUAD_IO;
    return command == READ || command == FAST_READ || (n->wide && wide);
}

static bool reads_status(const struct nor *n, uint8_t command) {
    return command == READ_STATUS || command == READ_STATUS_2 ||
           (n->large && command == READ_STATUS_3);
}

static bool is_known(const struct nor *n, uint8_t command) {
    if (command == ENTER_FOUR || command == EXIT_FOUR || command == READ_UPPER) {
        return n->large;
    }
    return is_read(n, command) || command == READ_UNIQUE_ID || command == READ_SFDP ||
           command == END_MODE || command == SUSPEND || command == RESUME ||
           bytes_of_operation(n, command) || command == READ_ID || reads_status(n, command) ||
           command == WRITE_ENABLE || command == WRITE_DISABLE || command == RELEASE ||
           command == POWER_DOWN || command == ENABLE_RESET || command == RESET;
}

/* What a command does, and with how many bytes of address; SFDP always has three. */
static uint8_t decode(struct nor *n, uint8_t command) {
    n->address_size = n->four && command != READ_SFDP ? 4 : 3;
    for (uint32_t i = 0; n->four_commands >> i; i++) {
        if (n->four_commands >> i & 1 && with_four[i].command == command) {
            n->address_size = 4;
            return with_four[i].does;
        }
    }
    return command;
}

/* A command that it ignores: whatever follows, until it is selected anew, does nothing either. */
static void ignore(struct mcu *m, struct nor *n, uint32_t kind) {
    refuse(m, n, kind);
    n->command = END_MODE;
}

static void take_command(struct mcu *m, struct nor *n, uint8_t command) {
    n->sent = command;
    command = n->command = decode(n, command);
    if (command == END_MODE) {
        n->continuous = false;
    } else if (n->continuous) { /* it is taken for an address */
        ignore(m, n, FAULT_FLASH_COMMAND);
    } else if (reads_status(n, command)) {
        return;
    } else if (n->job.busy &&
               command != SUSPEND) { /* the chip ignores all but the status register */
        ignore(m, n, FAULT_FLASH_BUSY);
    } else if (command == RELEASE) {
        n->down = false;
    } else if (n->down || !is_known(n, command)) {
        ignore(m, n, FAULT_FLASH_COMMAND);
    } else if (command == RESET && n->may_reset) {
        n->enabled = false;
        begin_addresses(m, n);
    }
    n->may_reset = command == ENABLE_RESET;
}

static uint8_t give_data(struct mcu *m, struct nor *n) {
    note_cells(m, &n->flash, n->address, 1);
    uint8_t byte = n->flash.cells[n->address];
    n->address = (n->address + 1) % n->flash.size;
    return byte;
}

/* A time in `units` of µs, rounded up: how many but one, and above those bits which unit. */
static uint32_t coded(uint32_t us, const uint32_t *units, uint32_t count) {
    enum { BITS = 5, MOST = 31 };
    uint32_t unit = 0;
    while (unit + 1 < count && (us - 1) / units[unit] > MOST) {
        unit++;
    }
    uint32_t many = (us - 1) / units[unit];
    return unit << BITS | (many < MOST ? many : (uint32_t)MOST);
}

/* The table of what the chip can, of JESD216B: that of JESD216 and seven words more. */
enum { BASIC_WORDS = 9, BASIC_WORDS_B = 16, FOUR_WORDS = 2 };
enum { SFDP_BASIC = 0x80, SFDP_FOUR = 0xd0 };
enum { ERASE_TIMES = 6, PAGE_TIMES = 2 | 8 << 4 }; /* of the longest; pages of 2^8 bytes */
enum { ADDRESS_BYTES = 1 << 17 };                  /* three, or four in the mode */
#define BYTE_TIMES 0x80ffc000u                     /* the longest: a byte takes as long as a page */
#define SUSPEND_TIMES 0x337663e9u /* 20 µs; this and the next two: published dumps of W25Q512JV */
#define SUSPEND_COMMANDS 0x757a757au
#define POWER_DOWN_COMMANDS 0x5cd5a2f7u
#define NO_QUAD 0xff000000u
#define RESERVED_16 0x80c00080u

static uint32_t word_of_times(const struct nor *n) {
    static const uint32_t units[] = {1000, 16000, 128000, 1000000};
    uint32_t sector = coded(n->sector_us, units, 4), half = coded(n->half_block_us, units, 4),
             block = coded(n->block_us, units, 4);
    return ERASE_TIMES | sector << 4 | half << 11 | block << 18;
}

static uint32_t word_of_programs(const struct nor *n) {
    static const uint32_t units[] = {8, 64}, of_all[] = {16000, 256000, 4000000, 64000000};
    return BYTE_TIMES | PAGE_TIMES | coded(n->program_us, units, 2) << 8 |
           coded(n->chip_us, of_all, 4) << 24;
}

/* How it is reset, leaves the mode with four bytes of address and enters it. */
static uint32_t word_of_addresses(const struct nor *n) {
    enum { STATUS_KEPT = 1, RESET_66_99 = 1 << 12 };
    enum { E9 = 1 << 14, EXIT_UPPER = 1 << 16, BY_RESET = 1 << 20, BY_POWER = 1 << 21 };
    enum { B7 = 1 << 24, ENTER_UPPER = 1 << 26, COMMANDS = 1 << 29 };
    return RESERVED_16 | STATUS_KEPT | RESET_66_99 | E9 | EXIT_UPPER | BY_RESET | BY_POWER | B7 |
           ENTER_UPPER | (n->four_commands ? (uint32_t)COMMANDS : 0);
}

static uint8_t byte_of(const uint32_t *words, uint32_t count, uint32_t at) {
    return at < 4 * count ? (uint8_t)(words[at / 4] >> 8 * (at % 4)) : 0xff;
}

static uint8_t byte_of_basic(const struct nor *n, uint32_t at) {
    const uint32_t table[BASIC_WORDS_B] = {
        0xff8020e5 | (n->wide ? 0x710000u : 0) | (n->large ? (uint32_t)ADDRESS_BYTES : 0),
        n->flash.size * 8 - 1,
        n->wide ? 0x6b08eb44 : 0,
        n->wide ? 0xbb803b08 : 0,
        0xffffffee,
        0xff00ffff,
        0xff00ffff,
        ERASE_32K << 24 | 15 << 16 | ERASE_SECTOR << 8 | 12,
        ERASE_64K << 8 | 16,
        word_of_times(n),
        word_of_programs(n),
        SUSPEND_TIMES,
        SUSPEND_COMMANDS,
        POWER_DOWN_COMMANDS,
        NO_QUAD,
        word_of_addresses(n),
    };
    return byte_of(table, n->large ? BASIC_WORDS_B : BASIC_WORDS, at);
}

/* The commands with four bytes of address, and those of them that erase. */
static uint8_t byte_of_four(const struct nor *n, uint32_t at) {
    uint32_t commands = n->four_commands, erases = 0xffffffff;
    for (uint32_t i = FOUR_SECTOR; i <= FOUR_64K; i++) {
        if (commands >> i & 1) {
            uint32_t shift = 8 * (i - FOUR_SECTOR);
            erases = (erases & ~(0xffu << shift)) | (uint32_t)with_four[i].command << shift;
        }
    }
    const uint32_t table[FOUR_WORDS] = {0xfff00000 | commands, erases};
    return byte_of(table, FOUR_WORDS, at);
}

/* The parameters that all such chips tell: JESD216. Behind headers lie tables of what it can. A
 * large chip tells more, as JESD216A and B have it. */
static uint8_t sfdp_byte(const struct nor *n, uint32_t at) {
    uint32_t minor = !n->large ? 0 : n->tells_four ? 6 : 5;
    uint32_t words = n->large ? BASIC_WORDS_B : BASIC_WORDS;
    const uint32_t header[] = {
        0x50444653,
        0xff000100 | minor | (n->tells_four ? 1u << 16 : 0),
        words << 24 | 0x010000 | minor << 8,
        0xff000000 | SFDP_BASIC,
        FOUR_WORDS << 24 | 0x010084,
        0xff000000 | SFDP_FOUR,
    };
    if (at < SFDP_BASIC) {
        return byte_of(header, n->tells_four ? 6 : 4, at);
    }
    if (n->tells_four && at >= SFDP_FOUR) {
        return byte_of_four(n, at - SFDP_FOUR);
    }
    return byte_of_basic(n, at - SFDP_BASIC);
}

/* Bytes between the address and the data: of a mode, and of clocks that count as bytes. */
static uint32_t dummies(uint8_t command) {
    switch (command) {
    case FAST_READ:
    case READ_DUAL_IO:
        return 1;
    case READ_DUAL:
        return 2;
    case READ_QUAD:
        return 4;
    case READ_QUAD_IO:
        return 3;
    default:
        return 0;
    }
}

/* The first two registers are written together; one alone leaves the others. */
static void take_status(struct mcu *m, struct nor *n, uint32_t number, uint8_t byte) {
    if (n->command == WRITE_STATUS && number == 0) {
        n->new_status = byte & SR_KEPT;
        n->new_status_2 = (uint8_t)kept_status_2(m, n);
        n->new_status_3 = (uint8_t)kept_status_3(m, n);
    } else if (n->command == WRITE_STATUS_2 && number == 0) {
        n->new_status = (uint8_t)kept_status(m, n);
        n->new_status_2 = byte & SR2_KEPT;
        n->new_status_3 = (uint8_t)kept_status_3(m, n);
    } else if (n->command == WRITE_STATUS_3 && n->large && number == 0) {
        n->new_status = (uint8_t)kept_status(m, n);
        n->new_status_2 = (uint8_t)kept_status_2(m, n);
        n->new_status_3 = byte & SR3_KEPT;
    } else if (n->command == WRITE_STATUS && number == 1) {
        n->new_status_2 = byte & SR2_KEPT;
    }
}

/* Another byte of the address; the register has the upper one of three bytes, and is given that of
 * four. What is beyond the chip begins again at its first byte. */
static void take_address(struct nor *n, uint32_t number, uint8_t byte) {
    n->address = n->address << 8 | byte;
    if (number + 1 < n->address_size) {
        return;
    }
    if (is_read(n, n->command) || bytes_of_operation(n, n->command) > n->address_size) {
        if (n->address_size == 4) {
            n->upper = n->address >> 24 & upper_bits(n);
        } else {
            n->address |= (uint32_t)n->upper << 24;
        }
    }
    n->address %= n->flash.size;
}

/* What it gives to a byte that comes behind the command. */
static uint8_t answer(struct mcu *m, struct nor *n, uint8_t byte) {
    uint32_t number = n->taken - 1; /* of bytes behind the command before this one */
    if (n->command == READ_STATUS) {
        return (uint8_t)(kept_status(m, n) | (n->job.busy ? (uint32_t)SR_BUSY : 0) |
                         (n->enabled || n->job.busy ? (uint32_t)SR_WEL : 0));
    }
    if (n->command == READ_STATUS_2) {
        return (uint8_t)(kept_status_2(m, n) | (n->suspended.busy ? (uint32_t)SR2_SUS : 0));
    }
    if (n->command == READ_STATUS_3 && n->large) {
        return (uint8_t)(kept_status_3(m, n) | (n->four ? (uint32_t)SR3_ADS : 0));
    }
    if (n->job.busy || n->down) {
        return 0xff;
    }
    if (n->command == READ_UPPER && n->large) {
        return n->upper;
    }
    if (n->command == READ_ID) {
        return number < 3 ? (uint8_t)(n->id >> (16 - 8 * number)) : 0xff;
    }
    take_status(m, n, number, byte);
    if (n->command == READ_UNIQUE_ID && number > n->address_size) {
        return (uint8_t)(n->id >> 8 * (number % UNIQUE_ID_SIZE % 3));
    }
    if (n->command == READ_SFDP && number > SFDP_ADDRESS) {
        return sfdp_byte(n, n->address + number - SFDP_ADDRESS - 1);
    }
    if (n->command == WRITE_UPPER && number == 0) {
        n->data[0] = byte;
    }
    if (number < n->address_size) {
        take_address(n, number, byte);
        return 0xff;
    }
    if (n->command == READ_QUAD_IO && number == n->address_size) {
        n->continuous = (byte & MODE_MASK) == MODE_CONTINUOUS;
    }
    if (is_read(n, n->command) && number >= n->address_size + dummies(n->command)) {
        return give_data(m, n);
    }
    if (n->command == PAGE_PROGRAM) { /* it begins again at the end of the page */
        uint32_t at = (n->address + number - n->address_size) % PAGE;
        n->data[at] = byte;
        n->first = at < n->first ? at : n->first;
        n->end = at >= n->end ? at + 1 : n->end;
    }
    return 0xff;
}

static uint8_t exchange(struct mcu *m, struct bus_chip *c, uint8_t byte) {
    struct nor *n = (struct nor *)c;
    uint8_t given = 0xff;
    if (!n->selected) {
        return given;
    }
    settle(m, c);
    if (n->taken) {
        given = answer(m, n, byte);
    } else {
        take_command(m, n, byte);
    }
    n->taken++;
    return given;
}

/* No pin of the chip is one that resets it: what is under way goes on. */
static void reset(struct mcu *m, struct bus_chip *c, enum reset_kind kind) {
    struct nor *n = (struct nor *)c;
    if (kind == RESET_POWER) {
        n->job.busy = n->suspended.busy = n->enabled = n->down = n->selected = n->writes_status =
            false;
        n->continuous = false;
        n->taken = 0;
        begin_addresses(m, n);
    }
}

static uint64_t next(const struct bus_chip *c) {
    return job_next(&((const struct nor *)c)->job);
}

static void lose_power(struct mcu *m, struct bus_chip *c) {
    struct nor *n = (struct nor *)c;
    settle(m, c);
    job_tear(m, &n->job);
    if (n->suspended.busy) {
        job_resume(m, &n->job, &n->suspended);
        job_tear(m, &n->job);
    }
}

static bool gives(struct mcu *m, struct bus_chip *c, int command) {
    const struct nor *n = (const struct nor *)c;
    bool quad = command == READ_QUAD || command == READ_QUAD_IO;
    if (n->job.busy || n->down || n->selected) {
        return false;
    }
    return command < 0 ? n->continuous
                       : !n->continuous && is_read(n, (uint8_t)command) &&
                             (!quad || kept_status_2(m, n) & SR2_QE);
}

/* `numbers`: those of every such chip. */
static struct nor *make(struct mcu *m, const struct device_place *place, const uint32_t *numbers) {
    assert(place->flash && place->flash[1].size == STATUS_SIZE);
    struct nor *n = device_memory(m, sizeof *n);
    n->chip = (struct bus_chip){.reset = reset,
                                .next = next,
                                .settle = settle,
                                .lose_power = lose_power,
                                .select = select,
                                .exchange = exchange,
                                .flash = &n->flash,
                                .gives = gives};
    n->id = numbers[0];
    n->program_us = numbers[1];
    n->sector_us = numbers[2];
    n->half_block_us = numbers[3];
    n->block_us = numbers[4];
    n->chip_us = numbers[5];
    n->status_us = numbers[6];
    n->status.apart = true;
    return n;
}

static void add_regions(struct mcu *m, struct nor *n, const struct device_place *place,
                        struct device *controller) {
    flash_add_region(m, &n->flash, &place->flash[0], controller);
    flash_add_region(m, &n->status, &place->flash[1], NULL);
}

void nor_spi_add(struct mcu *m, const struct device_place *place) {
    struct nor *n = make(m, place, place->numbers + 2);
    struct device *bus = find_device_at(m, place->base);
    struct device *port = find_device_at(m, place->numbers[0]);
    n->four_commands = place->numbers[9];
    n->tells_four = place->numbers[10];
    n->flash.apart = true;
    bus_add(spi_bus(bus), &n->chip);
    gpio_add_select(port, place->numbers[1], &n->chip, bus);
    add_regions(m, n, place, NULL);
    n->large = n->flash.size > NEAR;
}

/* A store to where it is read is the bus's, and never comes here. */
static void store(struct mcu *m, struct flash *f, uint32_t offset, unsigned size, uint64_t value) {
    (void)size;
    fault(m, FAULT_FLASH_STRAY, f->first + offset, (uint32_t)value);
}

/* Read in place, by several data lines. */
void nor_qspi_add(struct mcu *m, const struct device_place *place) {
    struct nor *n = make(m, place, place->numbers + 1);
    struct device *bus = find_device_at(m, place->base);
    n->quad = place->numbers[0];
    n->wide = n->flash.outside = true;
    n->flash.store = store;
    bus_add(ssi_bus(bus), &n->chip);
    add_regions(m, n, place, bus);
}
