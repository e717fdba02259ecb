/* The quotient belongs into r0 and r1, the remainder into r2 and r3, which C cannot say. */
    .syntax unified
    .section .text.__aeabi_uldivmod, "ax", %progbits
    .thumb
    .balign 4
    .global __aeabi_uldivmod
    .type __aeabi_uldivmod, %function
    .thumb_func
__aeabi_uldivmod:
    push {r4, lr}
    sub sp, sp, #16
    add r4, sp, #8
    str r4, [sp]
    bl aeabi_divide
    ldr r2, [sp, #8]
    ldr r3, [sp, #12]
    add sp, sp, #16
    pop {r4, pc}
