/* RP2040: the second stage, which the boot ROM copies to the RAM. It has the flash read by four
 * lines and without a command, and begins what lies behind it. Sources: the RP2040 data sheet,
 * sections 2.8.1.3 and 4.10.13; the data sheet of W25Q16JV, "Fast Read Quad I/O". */

.syntax unified
.cpu cortex-m0plus
.thumb

.equ SSI, 0x18000000
.equ CTRLR0, 0x00
.equ CTRLR1, 0x04
.equ SSIENR, 0x08
.equ SER, 0x10
.equ BAUDR, 0x14
.equ SR, 0x28
.equ SR_BUSY_TFE, 0x5
.equ SR_TFE, 0x4
.equ DR, 0x60
.equ SPI_CTRLR0, 0xf4

.equ QUAD_READ, 2 << 21 | 31 << 16 | 3 << 8 /* four lines, frames of 32 bits, reads */
.equ FIRST_READ, 4 << 11 | 2 << 8 | 8 << 2 | 1 /* a command by one line, an address and mode */
.equ EACH_READ, 0xa0 << 24 | 4 << 11 | 8 << 2 | 2 /* an address, and that there is no command */
.equ FAST_READ_QUAD_IO, 0xeb
.equ NO_COMMAND, 0xa0

.equ PROGRAM, 0x10000100
.equ VTOR, 0xe000ed08

.section .vectors, "ax"
.global vectors
.thumb_func
vectors:
    ldr r3, =SSI
    movs r0, #0
    movs r1, #1
    movs r2, #4
    str r0, [r3, #SSIENR]
    str r0, [r3, #CTRLR1]
    str r1, [r3, #SER]
    str r2, [r3, #BAUDR]
    ldr r2, =QUAD_READ
    str r2, [r3, #CTRLR0]
    movs r4, r3
    adds r4, #SPI_CTRLR0
    ldr r2, =FIRST_READ
    str r2, [r4]
    str r1, [r3, #SSIENR]
    movs r2, #FAST_READ_QUAD_IO
    str r2, [r3, #DR]
    movs r2, #NO_COMMAND
    str r2, [r3, #DR]
    movs r5, #SR_BUSY_TFE
wait:
    ldr r2, [r3, #SR]
    ands r2, r5
    cmp r2, #SR_TFE
    bne wait
    str r0, [r3, #SSIENR]
    ldr r2, =EACH_READ
    str r2, [r4]
    str r1, [r3, #SSIENR]
    mov r0, lr
    cmp r0, #0
    beq begin
    bx lr /* to firmware that has called it */
begin:
    ldr r0, =PROGRAM
    ldr r1, =VTOR
    str r0, [r1]
    ldmia r0!, {r1, r2}
    msr msp, r1
    bx r2
