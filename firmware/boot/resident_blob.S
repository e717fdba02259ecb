/* The resident program as data. The build driver puts resident.bin into the include path. */
    .section .rodata.resident_blob, "a", %progbits
    .balign 4
    .global resident_blob
    .global resident_blob_end
resident_blob:
    .incbin "resident.bin"
resident_blob_end:
