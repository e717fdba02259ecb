*** Settings ***
Documentation     The terminal in Renode's own words, for its `renode-test`. What the whole system
...               promises is in robot_tests/.
...
...               It needs the contents of a NOR: build/terminal.nor, or --variable NOR:FILE.
Test Setup        A Running Terminal


*** Variables ***
${NOR}            ${CURDIR}/../build/terminal.nor
${ELSEWHERE}      0x90000000    # no memory is there


*** Test Cases ***
The User Saves An Entry
    [Documentation]    One operation counts the start; an erase and two programs save the entry.
    The User Saves    Alice 112
    ${operations}=    Execute Command    nor OperationCount
    Should Be Equal As Integers    ${operations}    4
    The Phonebook Should Contain    Alice
    The Firmware Should Not Err

Power Is Cut Before An Operation
    [Documentation]    The erase is done, and the entry's first word never begins.
    Execute Command    nor CutBefore 2
    Write Line To Uart    pb add Alice 112
    Wait Until Keyword Succeeds    60 s    100 ms    The Cut Should Be Reached
    Power Is Cut And Given Back
    The Phonebook Should Not Contain    Alice
    The User Saves    Bob 113
    The Phonebook Should Contain    Bob
    The Firmware Should Not Err

A Power Cut Keeps What Was Saved
    The User Saves    Alice 112
    Power Is Cut And Given Back
    The Phonebook Should Contain    Alice
    The Firmware Should Not Err

A CPU That Has Gone Astray Starts Again
    Execute Command    pause
    Execute Command    cpu PC ${ELSEWHERE}
    Execute Command    start
    Wait Until Keyword Succeeds    60 s    100 ms    The CPU Should Be Aborted
    Power Is Cut And Given Back
    The Phonebook Should Not Contain    Alice

The First Power-On Finds No Zeros In The SRAM
    [Setup]    A Terminal
    ${word}=    Execute Command    sysbus ReadDoubleWord 0x48000000
    Should Not Be Equal As Integers    ${word}    0


*** Keywords ***
A Terminal
    File Should Exist    ${NOR}    no ${NOR} (`unbrick image factory` makes one)
    Execute Command    $nor=@${NOR}
    Execute Script    ${CURDIR}/terminal.resc
    Create Terminal Tester    sysbus.uart0    defaultPauseEmulation=False
    Create Log Tester    60

A Running Terminal
    A Terminal
    Start Emulation
    It Should Start

It Should Start
    Wait For Line On Uart    terminal: unbrick-terminal    timeout=60

Power Is Cut And Given Back
    Execute Command    machine Reset
    It Should Start

The User Saves
    [Arguments]    ${entry}
    Write Line To Uart    pb add ${entry}
    Wait For Line On Uart    ^added \\d+    timeout=60    treatAsRegex=True

The Phonebook Should Contain
    [Arguments]    ${name}
    Write Line To Uart    pb list
    Wait For Line On Uart    ${name}    timeout=60

The Phonebook Should Not Contain
    [Arguments]    ${name}
    Write Line To Uart    pb list
    Write Line To Uart    version
    Should Not Be On Uart    ${name}    timeout=2

The Cut Should Be Reached
    ${reached}=    Execute Command    nor CutReached
    Should Contain    ${reached}    True

The CPU Should Be Aborted
    Wait For Log Entry    CPU abort    timeout=60

The Firmware Should Not Err
    ${faults}=    Execute Command    nor FaultCount
    Should Be Equal As Integers    ${faults}    0
