/* What the boot ROM's tables for floating point have beyond what the compiler's library has.
 * Source: the RP2040 data sheet, section 2.8.3.2. Conversions round down, and keep within the type.
 */
#include <stdint.h>

/* Named in tables.S, and nowhere else. */
#define LOOKED_UP __attribute__((used))

float floorf(float value);
double floor(double value);
double sqrt(double value);
float sinf(float angle);
float cosf(float angle);
double sin(double angle);
double cos(double angle);

/* Less, the same, or greater: -1, 0, 1. */
LOOKED_UP int float_compare(float one, float other) {
    return (one > other) - (one < other);
}

LOOKED_UP int double_compare(double one, double other) {
    return (one > other) - (one < other);
}

/* 2 to the power of `bits`. */
static double scale(int bits) {
    union {
        uint64_t bits;
        double value;
    } power = {(uint64_t)(bits + 1023) << 52};
    return power.value;
}

static int64_t to_signed(double value, int bits, double most) {
    double whole = floor(value * scale(bits));
    int64_t least = most > 4e9 ? INT64_MIN : INT32_MIN;
    return whole >= most ? ~least : whole < -most ? least : (int64_t)whole;
}

static uint64_t to_unsigned(double value, int bits, double most) {
    double whole = floor(value * scale(bits));
    return whole >= most ? (most > 5e9 ? UINT64_MAX : UINT32_MAX) : whole < 0 ? 0 : (uint64_t)whole;
}

#define INT32_END 2147483648.0
#define UINT32_END 4294967296.0
#define INT64_END 9223372036854775808.0
#define UINT64_END 18446744073709551616.0

#define CONVERSIONS(type)                                                                          \
    LOOKED_UP int32_t type##_to_int(type value) {                                                  \
        return (int32_t)to_signed(value, 0, INT32_END);                                            \
    }                                                                                              \
    LOOKED_UP int32_t type##_to_fix(type value, int bits) {                                        \
        return (int32_t)to_signed(value, bits, INT32_END);                                         \
    }                                                                                              \
    LOOKED_UP uint32_t type##_to_uint(type value) {                                                \
        return (uint32_t)to_unsigned(value, 0, UINT32_END);                                        \
    }                                                                                              \
    LOOKED_UP uint32_t type##_to_ufix(type value, int bits) {                                      \
        return (uint32_t)to_unsigned(value, bits, UINT32_END);                                     \
    }                                                                                              \
    LOOKED_UP int64_t type##_to_int64(type value) {                                                \
        return to_signed(value, 0, INT64_END);                                                     \
    }                                                                                              \
    LOOKED_UP int64_t type##_to_fix64(type value, int bits) {                                      \
        return to_signed(value, bits, INT64_END);                                                  \
    }                                                                                              \
    LOOKED_UP uint64_t type##_to_uint64(type value) {                                              \
        return to_unsigned(value, 0, UINT64_END);                                                  \
    }                                                                                              \
    LOOKED_UP uint64_t type##_to_ufix64(type value, int bits) {                                    \
        return to_unsigned(value, bits, UINT64_END);                                               \
    }                                                                                              \
    LOOKED_UP type fix_to_##type(int32_t value, int bits) {                                        \
        return (type)(value * scale(-bits));                                                       \
    }                                                                                              \
    LOOKED_UP type ufix_to_##type(uint32_t value, int bits) {                                      \
        return (type)(value * scale(-bits));                                                       \
    }                                                                                              \
    LOOKED_UP type fix64_to_##type(int64_t value, int bits) {                                      \
        return (type)((double)value * scale(-bits));                                               \
    }                                                                                              \
    LOOKED_UP type ufix64_to_##type(uint64_t value, int bits) {                                    \
        return (type)((double)value * scale(-bits));                                               \
    }

CONVERSIONS(float)
CONVERSIONS(double)

/* Both come back, the sine in the first registers. */
struct two_floats {
    float sine, cosine;
};

LOOKED_UP uint64_t float_sine_and_cosine(float angle) {
    union {
        struct two_floats values;
        uint64_t both;
    } found = {{sinf(angle), cosf(angle)}};
    return found.both;
}

/* The cosine of a double comes back by the address behind it, which no firmware is known to use. */
LOOKED_UP double double_sine_and_cosine(double angle) {
    return sin(angle);
}

#define HALF_PI 1.57079632679489661923
#define PI 3.14159265358979323846

/* Of 0 to 1: the angle is halved until its series is short. */
static double arc_tangent(double value) {
    enum { HALVINGS = 3, TERMS = 13 };
    for (int i = 0; i < HALVINGS; i++) {
        value /= 1 + sqrt(1 + value * value);
    }
    double square = value * value, sum = 0;
    for (int term = TERMS; term > 0; term -= 2) {
        sum = 1.0 / term - square * sum;
    }
    return value * sum * (1 << HALVINGS);
}

LOOKED_UP double double_atan2(double y, double x) {
    double rise = y < 0 ? -y : y, run = x < 0 ? -x : x;
    if (rise == 0 && run == 0) {
        return 0;
    }
    double angle = rise <= run ? arc_tangent(rise / run) : HALF_PI - arc_tangent(run / rise);
    angle = x < 0 ? PI - angle : angle;
    return y < 0 ? -angle : angle;
}

LOOKED_UP float float_atan2(float y, float x) {
    return (float)double_atan2(y, x);
}
