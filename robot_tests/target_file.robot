*** Settings ***
Documentation     Firmware of one's own, which a target file describes.
...
...               It is compiled from ``updater.c``, once as it must be and once with a bug. It runs
...               in process, whatever engine the terminal has.
Library           OperatingSystem
Library           ../tests/small_firmware.py
Library           unbrick.robot
Suite Setup       Build The Updaters


*** Variables ***
# What begins the update: the console, and whatever `[update]` of a target file says.
${UPDATE}         console = "usart2"\n[update]\nafter = "old"\ntype = "u"\nwithin = "1 s"
${GOOD}           ${OUTPUT DIR}${/}target-good
${BAD}            ${OUTPUT DIR}${/}target-bad


*** Test Cases ***
The Device Is Updated
    [Tags]    qemu
    Start Target    ${GOOD}${/}small.toml
    Wait For Line On Uart    old
    Start Target Update
    Wait For Line On Uart    ready
    Cut Power
    Power On
    ${line} =    Wait For Next Line On Uart
    Should Be Equal    ${line.Line}    ready

A Person Types
    [Tags]    qemu
    Start Target    ${GOOD}${/}small.toml
    Wait For Line On Uart    old
    Write To Uart    x
    Should Not Be On Uart    ready    timeout=1 s
    Write To Uart    u
    Wait For Line On Uart    ready

Power Is Lost Before The Mark
    [Documentation]    Operation 0 erases, 1 to 3 program, and 4 marks it.
    [Tags]    qemu
    Start Target    ${GOOD}${/}small.toml
    Start Target Update
    Cut Power Before Operation    4
    Power On
    Wait For Line On Uart    old
    Target Should Recover
    Wait For Line On Uart    ready

Power Is Lost After A Mark That Came First
    [Tags]    qemu
    Start Target    ${BAD}${/}small.toml
    Start Target Update
    Cut Power Before Operation    2
    Run Keyword And Expect Error    the device does not recover: *    Target Should Recover
    Power On
    Wait For Line On Uart    broken

An Operation That Does Not Come Is Told
    Start Target    ${GOOD}${/}small.toml
    Run Keyword And Expect Error
    ...    flash operation 0 did not come within 2 s; there were 0 (begin the update first)
    ...    Cut Power Before Operation    0    timeout=2 s
    Start Target Update
    Run Keyword And Expect Error    flash operation 5 did not come within 2 s; there were 5
    ...    Cut Power Before Operation    5    timeout=2 s
    Run Keyword And Expect Error    flash operation 3 has been: *
    ...    Cut Power Before Operation    3

No Number Of Power Cuts Bricks It
    [Tags]    qemu
    Campaign Should Be Closed    ${GOOD}${/}small.toml

No Power Cut Bricks It
    [Tags]    qemu
    Campaign Should Find No Violation    ${GOOD}${/}small.toml    preset=single

A Bug Is Found
    Run Keyword And Expect Error    *unbrick replay *target-bad*small.toml small/2*
    ...    Campaign Should Find No Violation    ${BAD}${/}small.toml
    Run Keyword And Expect Error    *unbrick replay *
    ...    Campaign Should Be Closed    ${BAD}${/}small.toml


*** Keywords ***
Build The Updaters
    ${source} =    Get File    ${CURDIR}${/}updater.c
    Create Directory    ${GOOD}
    Create Directory    ${BAD}
    Build Small    ${GOOD}    stm32f103xb    ${source}    ${UPDATE}
    Build Small    ${BAD}    stm32f103xb    \#define MARK_FIRST\n${source}    ${UPDATE}
