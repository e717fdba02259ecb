*** Settings ***
Documentation     The server sends only what differs; the terminal rebuilds the new software from it and
...               the NOR.
Resource          terminal.resource
Test Setup        A Terminal Whose Software The Server Knows


*** Test Cases ***
The Terminal Rebuilds The New Software
    Update Terminal    1.1.0
    Terminal Should Run    1.1.0
    The NOR Should Hold    1.1.0
    The User's Data Should Be There

The File Is A Small Part Of The Software
    Start Update    1.1.0
    ${announced} =    Wait For Line On Uart    announced 1.1.0, (\\d+) bytes    treatAsRegex=true
    Wait For Update    succeeded
    ${bytes} =    Get Size Of Differential File
    Should Be Equal As Integers    ${announced.Groups[0]}    ${bytes}
    Should Be True    ${bytes} < 4000

Room Is Made For File, New Software And Working Memory
    Start Update    1.1.0
    ${secured} =    Wait For Line On Uart    secured (\\d+) bytes    treatAsRegex=true
    Wait For Update    succeeded
    ${bytes} =    Get Size Of Differential File
    Should Be True    ${secured.Groups[0]} > ${bytes} + 60000

One Update After The Other
    [Tags]    qemu
    Update Terminal    1.1.0
    Update Terminal    1.3.0
    Terminal Should Run    1.3.0
    ${bytes} =    Get Size Of Differential File
    Should Be True    ${bytes} < 4000
    The User's Data Should Be There

The Full Software Comes When The Server Has Never Seen What Is Installed
    [Setup]    A Registered Terminal With A User's Data
    [Tags]    qemu
    Send Differential Files
    Start Update    1.1.0
    Wait For Update    succeeded
    Update Should Have Sent Full Image
    Terminal Should Run    1.1.0

Power Is Lost While The Rebuilt Software Is Written
    Start Update    1.1.0
    Wait For Line On Uart    update: checked    timeout=5 min
    Cut Power At Flash Operation    12
    Power On
    Server Should Know That Terminal Runs    1.1.0    timeout=5 min
    The User's Data Should Be There


*** Keywords ***
A Terminal Whose Software The Server Knows
    A Registered Terminal With A User's Data
    Send Differential Files
    Publish    1.0.0

The NOR Should Hold
    [Arguments]    ${version}
    Cut Power
    Nor Should Hold Image    ${version}
    Power On
