/* The agent as data. The build driver puts agent.bin into the include path. */
    .section .rodata.agent_blob, "a", %progbits
    .balign 4
    .global agent_blob
    .global agent_blob_end
agent_blob:
    .incbin "agent.bin"
agent_blob_end:
