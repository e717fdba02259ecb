/* The tables for floating point, and what is not to be said in C. Source: the RP2040 data sheet,
 * section 2.8.3. */

.syntax unified
.cpu cortex-m0plus

.global copyright, revision, float_table, double_table, debug_trampoline, debug_trampoline_end

.section .tables, "a"
copyright:
    .asciz "Unbrick"

/* Both have their number of words two bytes before them. */
    .balign 4
revision:
    .word 0
    .hword 0, 32
float_table:
    .word __aeabi_fadd, __aeabi_fsub, __aeabi_fmul, __aeabi_fdiv
    .word float_compare, float_compare_flags, sqrtf
    .word float_to_int, float_to_fix, float_to_uint, float_to_ufix
    .word __aeabi_i2f, fix_to_float, __aeabi_ui2f, ufix_to_float
    .word cosf, sinf, tanf, float_sine_and_cosine, expf, logf
    .word float_compare, float_atan2
    .word __aeabi_l2f, fix64_to_float, __aeabi_ul2f, ufix64_to_float
    .word float_to_int64, float_to_fix64, float_to_uint64, float_to_ufix64
    .word __aeabi_f2d
    .hword 0, 32
double_table:
    .word __aeabi_dadd, __aeabi_dsub, __aeabi_dmul, __aeabi_ddiv
    .word double_compare, double_compare_flags, sqrt
    .word double_to_int, double_to_fix, double_to_uint, double_to_ufix
    .word __aeabi_i2d, fix_to_double, __aeabi_ui2d, ufix_to_double
    .word cos, sin, tan, double_sine_and_cosine, exp, log
    .word double_compare, double_atan2
    .word __aeabi_l2d, fix64_to_double, __aeabi_ul2d, ufix64_to_double
    .word double_to_int64, double_to_fix64, double_to_uint64, double_to_ufix64
    .word __aeabi_d2f

.section .text.assembly, "ax"

/* For a debugger: it sets R7 to a function, and stops behind the call. */
.thumb_func
debug_trampoline:
    blx r7
.thumb_func
debug_trampoline_end:
    bkpt #0

/* The flags are as those of a comparison of two integers that are in the same order. */
.macro compare_flags name, function
.thumb_func
\name:
    push {r0, r1, r2, r3, r4, lr}
    bl \function
    cmp r0, #0
    pop {r0, r1, r2, r3, r4, pc}
.endm
    compare_flags float_compare_flags, float_compare
    compare_flags double_compare_flags, double_compare
