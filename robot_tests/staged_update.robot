*** Settings ***
Documentation     An update over the air: announced, room made, received into SRAM, rewritten into NOR.
Resource          terminal.resource
Test Setup        A Registered Terminal With A User's Data


*** Test Cases ***
The Terminal Says Who It Is And What It Runs
    ${who} =    Type Command    id
    Should Contain    ${who}    UB-000001
    Server Should Know That Terminal Runs    1.0.0

Software That Uses The SRAM Is Limited Before The File Is Asked For
    [Tags]    qemu
    Tasks Should Work    voice    logger    maps    media    browser
    Start Update    1.1.0
    Wait For Transfer
    @{said} =    Create List    update: announced 1.1.0    update: limited browser    update: secured
    Wait For Lines On Uart    ${said}    timeout=0 s
    Wait For Update    succeeded

Software That Need Not Be Limited Goes On Working During The Transfer
    Start Update    1.1.0
    Wait For Line On Uart    update: received 10 %
    ${tasks} =    Type Command    tasks
    Should Match Regexp    ${tasks}    browser .*ended
    Tasks Should Work    voice    logger    maps    media

The Area Is As Large As The Announced File
    Start Update    1.1.0
    ${announced} =    Wait For Line On Uart    announced 1.1.0, (\\d+) bytes    treatAsRegex=true
    ${secured} =    Wait For Line On Uart    secured (\\d+) bytes    treatAsRegex=true
    Should Be True    ${secured.Groups[0]} >= ${announced.Groups[0]}

A Task That The User Holds Is Spared
    Type Command    hold browser
    Start Update    1.1.0
    ${limited} =    Wait For Line On Uart    update: limited
    Should Contain    ${limited.Line}    media
    Wait For Update    succeeded

An Update That Cannot Fit Is Refused Before Anything Is Transferred
    [Tags]    qemu
    FOR    ${task}    IN    browser    media    maps    logger
        Type Command    hold ${task}
    END
    Start Update    1.1.0
    Wait For Update    refused
    Update Should Have Ended With    NOT_ENOUGH_SRAM
    Nothing Should Be Transferred
    The Terminal Should Be None The Worse For It

The File Comes Over The Wireless Link, Every Block Of It
    [Tags]    qemu
    Start Update    1.1.0
    Wait For Line On Uart    update: checked    timeout=5 min
    ${blocks} =    Get Transferred Blocks
    ${different} =    Evaluate    sorted(set($blocks))
    Should Be Equal    ${different}    ${{list(range(len($different)))}}

The Application Is Rewritten, Tried And Confirmed
    Start Update    1.1.0
    Wait For Line On Uart    agent: rewriting    timeout=5 min
    Wait For Line On Uart    agent: done
    Wait For Line On Uart    boot: trial start 1 of 3
    Wait For Line On Uart    update: 1.1.0 confirmed
    Wait For Update    succeeded
    Terminal Should Run    1.1.0
    Server Should Know That Terminal Runs    1.1.0

What Was Sent Is What Lies In The NOR
    Update Terminal    1.1.0
    Cut Power
    Nor Should Hold Image    1.1.0

Success Is Judged From What Is In The NOR
    [Documentation]    What was sent was right, what lies in the NOR is not: the terminal must notice.
    Start Update    1.1.0
    Wait For Line On Uart    agent: done    timeout=5 min
    Cut Power
    Flip Nor Bit    application    0x4321
    Power On
    Wait For Restoration State
    Update Should Be    transferring    received    checked    rewriting    failed

A Healthy Start Changes No Bit But The One That Counts It
    Update Terminal    1.1.0
    Wait For Registration
    ${before} =    Read The NOR
    Wait For Registration
    The NOR Should Be As It Was    ${before}
