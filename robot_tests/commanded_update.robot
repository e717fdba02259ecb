*** Settings ***
Documentation     A commanded update, as fig. 3 has it: data is received (S200), the terminal checks that it was
...               received well (S201), carries out the command (S202) and sends its result (S203).
Resource          terminal.resource
Test Setup        A Terminal That Is To Be Commanded


*** Test Cases ***
S200 To S203: Each Command Is Received, Checked, Carried Out And Its Result Sent
    [Documentation]    By the clock, what is late has no answer, and is sent again.
    [Tags]    qemu
    Start Commanded Update    1.1.0
    Wait For Commanded Update    timeout=10 min
    ${commands} =    Get Requests    /erase    /write    /check    /finish
    ${results} =    Get Requests    /result
    All Steps Should Be Done
    ${engine} =    Get Variable Value    ${ENGINE}    inprocess
    IF    $engine == 'inprocess'
        Should Be Equal As Integers    ${{len($commands)}}    ${{len($results)}}
        Should Be True    all(line.endswith("2.04") for line in $commands + $results)
    ELSE
        Should Be True    all(line.endswith(("2.04", "no answer")) for line in $commands + $results)
    END

The Resident Program Is Loaded Into SRAM When The Upgrade Starts
    Start Commanded Update    1.1.0
    Wait For Line On Uart    update: commanded to 1.1.0    timeout=2 min
    Wait For Line On Uart    boot: resident program loaded
    Wait For Line On Uart    resident: commanded update
    Wait For Line On Uart    resident: erased    timeout=2 min
    Wait For Line On Uart    update: 1.1.0 confirmed    timeout=5 min

S201: What Was Received Badly Is Not Carried Out
    [Documentation]    The frame's checksum finds a bit that flips; the command comes again.
    [Tags]    minutes
    Make Link Bad    corrupt=0.2    seed=3
    Start Commanded Update    1.1.0
    Wait For Commanded Update    timeout=1 h
    Link Should Have Failed
    What Lies In The NOR Is    1.1.0

S201: What Is Received Twice Is Carried Out Once
    [Tags]    minutes
    Make Link Bad    duplicate=0.5    seed=5
    Start Commanded Update    1.1.0
    Wait For Commanded Update    timeout=1 h
    Link Should Have Failed
    What Lies In The NOR Is    1.1.0

Only What Differs Is Erased And Written
    [Tags]    qemu
    ${before} =    Read The NOR
    Wait For Registration
    Start Commanded Update    1.1.0
    Wait For Commanded Update    timeout=10 min
    Only What Differs Should Be Touched
    What Lies In The NOR Is    1.1.0
    The NOR Should Be As It Was    ${before}    identity
    The NOR Should Be As It Was    ${before}    boot

The Terminal Goes On Where It Was After A Power Cut
    [Tags]    qemu
    Start Commanded Update    1.1.0
    Wait For Step    write
    Cut Power
    Power On    wait=False
    Wait For Line On Uart    resident: commanded update    timeout=2 min
    Wait For Commanded Update    timeout=10 min
    What Lies In The NOR Is    1.1.0
    The User's Data Should Be There

The Server Goes On Where It Was After Its Death
    Start Commanded Update    1.1.0
    Wait For Step    write
    Stop Server
    Run For    30 s
    Start Server
    Wait For Commanded Update    timeout=10 min
    What Lies In The NOR Is    1.1.0
    The User's Data Should Be There

Software That Nobody Has Signed Is Not Begun With
    Publish    1.3.0    spoiled=signed_by_another
    Start Commanded Update    1.3.0
    Wait For Commanded Update    failed
    Update Should Have Ended With    SIGNATURE_WRONG
    No Personal Data Should Be Left
    The Terminal Should Be None The Worse For It

With The Server Gone The Terminal Can Be Restored Over The Wire
    [Tags]    minutes
    Start Commanded Update    1.1.0
    Wait For Step    write
    Stop Server
    Wait For Restoration State    timeout=5 min
    Restore Terminal    1.1.0
    Terminal Should Run    1.1.0
    Start Server
    Wait For Commanded Update
    The User's Data Should Be There


*** Keywords ***
A Terminal That Is To Be Commanded
    [Documentation]    It runs 1.0.0, its user has saved two entries, and 1.1.0 is prepared for it.
    Start Terminal    installed=1.0.0
    Prepare Upgrades Before They Are Asked For
    Publish    1.0.0
    Publish    1.1.0
    Wait For Registration
    Add Phonebook Entry    Alice    +441632960123
    Add Phonebook Entry    Bob    112

What Lies In The NOR Is
    [Arguments]    ${version}
    Wait For Commanded Update
    Terminal Should Run    ${version}
    Cut Power
    Nor Should Hold Image    ${version}
    Power On
