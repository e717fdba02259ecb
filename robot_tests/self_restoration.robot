*** Settings ***
Documentation     A terminal without valid software gets it back by itself, over the wireless link; and over
...               the wire when that is dead. Nobody needs to be there for the first.
Resource          terminal.resource


*** Test Cases ***
A Terminal Without An Application Restores Itself
    Start Terminal    installed=nothing
    Publish    1.1.0
    Server Should Know That Terminal Runs    1.1.0    timeout=5 min
    Terminal Should Run    1.1.0

Damaged Software Is Brought Back As It Was
    [Tags]    qemu
    A Registered Terminal With A User's Data
    Publish    1.0.0
    Cut Power
    Flip Nor Bit    application    0x1234
    Power On    wait=False
    Wait For Restoration State    application damaged
    Wait For Prompt On Uart    timeout=5 min
    Terminal Should Run    1.0.0
    The User's Data Should Be There

Software That Fails Its Trial Is Not Sent Again
    A Registered Terminal With A User's Data
    Publish    1.0.0
    Publish    1.2.0
    Start Update    1.2.0
    Wait For Restoration State    the new software failed its trial    timeout=5 min
    Wait For Prompt On Uart    timeout=5 min
    Terminal Should Run    1.0.0
    The User's Data Should Be There

With The Link Dead It Is Restored Over The Wire
    [Tags]    qemu
    Start Terminal    installed=nothing
    Publish    1.1.0
    Cut Link    1 h
    Wait For Restoration State    no application
    Restore Terminal    1.1.0
    Terminal Should Run    1.1.0

Power Cuts Only Make It Take Longer
    Start Terminal    installed=nothing
    Publish    1.1.0
    FOR    ${_}    IN RANGE    4
        Run For    2 s
        Cut Power
        Power On    wait=False
    END
    Server Should Know That Terminal Runs    1.1.0    timeout=5 min
    Terminal Should Run    1.1.0
