/* The agent's exception vectors (see agent/vectors.h). */
    .syntax unified
    .section .text.agent_vectors, "ax", %progbits
    .arm
    .balign 32
    .global agent_vectors
agent_vectors:
    .rept 8
    b exception
    .endr

/* Nothing of what was interrupted is needed again: any stack will do. */
exception:
    mov r0, lr
    cpsid aif, #0x13
    ldr sp, =fault_stack_top
    ldr r1, =agent_fault
    bx r1
    .ltorg
