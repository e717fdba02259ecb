/* Start-up and exception vectors of boot, resident program and application. Exceptions are taken in ARM state; the
 * vectors are therefore ARM code, all the rest is Thumb. */
    .syntax unified

/* The first two words of resident program and application; boot has none. */
    .section .start_vector, "a", %progbits
    .word stack_top
    .word system_start

    .section .vectors, "ax", %progbits
    .arm
    .balign 32
    .global vectors
vectors:
    ldr pc, =system_start
    b undefined_instruction
    b supervisor_call
    b prefetch_abort
    b data_abort
    b hypervisor_call
    b interrupt
    b fast_interrupt

/* r1: where it happened. lr is that far behind, in ARM and in Thumb state. */
.macro exception name, arm, thumb, text
\name:
    mrs r2, spsr
    tst r2, #0x20
    subeq r1, lr, #\arm
    subne r1, lr, #\thumb
    ldr r0, =1f
    b exception_common
    .pushsection .rodata.exceptions, "a", %progbits
1:  .asciz "\text"
    .popsection
.endm

    exception undefined_instruction, 4, 2, "undefined instruction"
    exception supervisor_call, 4, 2, "supervisor call"
    exception prefetch_abort, 4, 4, "prefetch abort"
    exception data_abort, 8, 8, "data abort"
    exception hypervisor_call, 4, 2, "hypervisor call"
    exception interrupt, 4, 4, "interrupt"
    exception fast_interrupt, 4, 4, "fast interrupt"

exception_common:
    cpsid aif, #0x13
    ldr sp, =stack_top
    ldr r2, =system_exception
    bx r2
    .ltorg

    .section .text.system_start, "ax", %progbits
    .thumb
    .balign 4
    .global system_start
    .type system_start, %function
    .thumb_func
system_start:
    cpsid aif, #0x13
    ldr r0, =vectors
    mcr p15, 0, r0, c12, c0, 0 /* VBAR */
    isb
    ldr r0, =stack_top
    mov sp, r0
    ldr r0, =data_start
    ldr r1, =data_end
    ldr r2, =data_load
1:  cmp r0, r1
    bhs 2f
    ldr r3, [r2], #4
    str r3, [r0], #4
    b 1b
2:  ldr r0, =bss_start
    ldr r1, =bss_end
    movs r3, #0
3:  cmp r0, r1
    bhs 4f
    str r3, [r0], #4
    b 3b
4:  bl system_init
    bl main
    .ltorg
