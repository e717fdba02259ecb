/* The agent's exception vectors, and its way back to boot. */
    .syntax unified
    .section .text.agent_vectors, "ax", %progbits
    .arm
    .balign 32
    .global agent_vectors
agent_vectors:
    .rept 8
    b agent_fault
    .endr

/* Waits until both chips are ready, makes them show their array, and resets the board. Needs no stack. */
agent_fault:
    cpsid aif, #0x13
    ldr r0, =BOARD_NOR_WINDOW
    ldr r1, =0x00700070 /* read status */
    ldr r2, =0x00800080 /* ready */
    str r1, [r0]
1:  ldr r3, [r0]
    and r3, r3, r2
    cmp r3, r2
    bne 1b
    ldr r1, =0x00ff00ff /* read array */
    str r1, [r0]
    ldr r0, =BOARD_SYS_CFGCTRL
    ldr r1, =0xc0900000 /* SYS_CFGCTRL_REBOOT of board/registers.h */
    str r1, [r0]
2:  wfi
    b 2b
    .ltorg
