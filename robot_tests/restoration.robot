*** Settings ***
Documentation     A terminal without a valid application asks for it over the wire, and gets it.
Resource          terminal.resource


*** Test Cases ***
A Terminal Without An Application Is Restored
    Start Terminal    installed=nothing
    Wait For Restoration State    no application
    ${says} =    Restore Terminal    1.1.0
    Should Contain    ${says}    1.1.0
    Terminal Should Run    1.1.0
    Server Should Know That Terminal Runs    1.1.0

Damage Is Found At A Later Start
    A Registered Terminal With A User's Data
    Cut Power
    Flip Nor Bit    application    0x1234
    Power On
    Wait For Restoration State    application damaged
    Restore Terminal    1.0.0
    The User's Data Should Be There

An Interrupted Rewrite Leads To The Restoration State
    A Registered Terminal With A User's Data
    Start Update    1.1.0
    Wait For Line On Uart    update: checked    timeout=5 min
    Cut Power At Flash Operation    12
    Power On
    Wait For Restoration State    rewrite was interrupted
    Restore Terminal    1.1.0
    Terminal Should Run    1.1.0
    The User's Data Should Be There

Software That Fails Its Trial Is Replaced Over The Wire
    [Tags]    qemu
    A Registered Terminal With A User's Data
    Publish    1.2.0
    Start Update    1.2.0
    Wait For Line On Uart    boot: trial start 1 of 3    timeout=5 min
    Wait For Lines On Uart    ${{['panic:', 'panic:', 'panic:']}}
    Wait For Restoration State    the new software failed its trial
    Restore Terminal    1.1.0
    Terminal Should Run    1.1.0
    The User's Data Should Be There

An Image That Must Not Run Is Refused, And A Good One Still Wanted
    Start Terminal    installed=nothing
    Wait For Restoration State
    ${before} =    Read The NOR
    Wait For Restoration State
    Run Keyword And Expect Error    *signature*    Restore Terminal    1.1.0    spoiled=signature_wrong
    The NOR Should Be As It Was    ${before}
    Restore Terminal    1.1.0
    Terminal Should Run    1.1.0
