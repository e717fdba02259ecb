*** Settings ***
Documentation     The wireless link fails, and so does the server: the update goes through, or leaves
...               everything as it was.
Resource          terminal.resource


*** Test Cases ***
The Update Gets Through A Link That Loses Messages
    [Tags]    qemu
    The Update Gets Through A Link With    drop=0.03

The Update Gets Through A Link That Doubles Messages
    The Update Gets Through A Link With    duplicate=0.3

The Update Gets Through A Link That Mixes Messages Up
    The Update Gets Through A Link With    reorder=0.3    delay=50 ms

The Update Gets Through A Link That Breaks Messages
    The Update Gets Through A Link With    corrupt=0.015    truncate=0.015

The Update Gets Through A Link With Noise
    The Update Gets Through A Link With    noise=0.00006

The Update Gets Through A Link That Changes Bytes Which No Checksum Guards
    [Documentation]    The link's protection finds them: nothing of such a message is believed.
    [Tags]    qemu
    The Update Gets Through A Link With    garble=0.2

The Server Dies In Mid-Transfer And Returns
    [Tags]    qemu
    A Registered Terminal With A User's Data
    Start Update    1.1.0
    Wait For Line On Uart    update: received 30 %    timeout=5 min
    Stop Server
    Run For    3 s
    Start Server
    Wait For Update    succeeded
    Terminal Should Run    1.1.0

The Terminal Is Out Of Reach For A While
    A Registered Terminal With A User's Data
    Start Update    1.1.0
    Wait For Line On Uart    update: received 30 %    timeout=5 min
    Cut Link    3 s
    Wait For Update    succeeded
    Terminal Should Run    1.1.0

The Server Is Gone For Good
    [Documentation]    The terminal gives up after a minute without any answer, and works on.
    [Tags]    minutes
    A Registered Terminal With A User's Data
    ${before} =    Read The NOR
    Start Update    1.1.0
    Wait For Line On Uart    update: received 30 %    timeout=5 min
    Stop Server
    Wait For Line On Uart    update: failed    timeout=5 min
    Wait For Line On Uart    update: resumed browser
    The NOR Should Be As It Was    ${before}
    The Terminal Should Be None The Worse For It


*** Keywords ***
The Update Gets Through A Link With
    [Arguments]    &{faults}
    A Registered Terminal With A User's Data
    Make Link Bad    &{faults}    seed=11
    Start Update    1.1.0
    Wait For Update    succeeded    timeout=20 min
    Link Should Have Failed
    Terminal Should Run    1.1.0
    The User's Data Should Be There
