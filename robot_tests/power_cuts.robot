*** Settings ***
Documentation     The power goes at the worst of times. The terminal always comes back.
...
...               A few moments are picked here. The campaign tries all of them.
Resource          terminal.resource


*** Test Cases ***
Power Is Lost During The Transfer
    [Tags]    qemu
    A Registered Terminal With A User's Data
    Start Update    1.1.0
    Wait For Line On Uart    update: received 50 %    timeout=5 min
    Restart Terminal
    Terminal Should Run    1.0.0
    The User's Data Should Be There

Power Is Lost Before The First Erase
    Power Is Lost In A Rewrite    1    1.0.0

Power Is Lost In The Middle Of The Rewrite
    Power Is Lost In A Rewrite    8    restoration
    Power Is Lost In A Rewrite    20    restoration
    Power Is Lost In A Rewrite    30    restoration

Power Is Lost During The Trial
    [Documentation]    Until the new software has confirmed itself, boot tries it again.
    A Registered Terminal With A User's Data
    Start Update    1.1.0
    Wait For Line On Uart    boot: trial start 1 of 3    timeout=5 min
    Restart Terminal
    Server Should Know That Terminal Runs    1.1.0
    Wait For Update    succeeded
    The User's Data Should Be There

Power Is Lost While The User Saves An Entry
    [Tags]    qemu
    A Registered Terminal With A User's Data
    Write Line To Uart    pb add Carol 999    waitForEcho=false
    Cut Power At Flash Operation    1
    Power On
    The User's Data Should Be There
    Phonebook Should Not Contain    Carol

Power Is Lost Again And Again
    A Registered Terminal With A User's Data
    FOR    ${_}    IN RANGE    5
        Cut Power
        Power On    wait=False
        Run For    30 ms
    END
    Restart Terminal
    Terminal Should Run    1.0.0
    The User's Data Should Be There

Every Power Cut While An Entry Is Saved
    [Tags]    qemu
    Campaign Should Find Nothing    phonebook


*** Keywords ***
Power Is Lost In A Rewrite
    [Documentation]    Operations are counted from the moment at which the file has been checked.
    [Arguments]    ${operation}    ${outcome}
    A Registered Terminal With A User's Data
    Start Update    1.1.0
    Wait For Line On Uart    update: checked    timeout=5 min
    Cut Power At Flash Operation    ${operation}
    Power On
    IF    $outcome == 'restoration'
        Wait For Restoration State    rewrite was interrupted
        Restore Terminal    1.1.0
        Terminal Should Run    1.1.0
    ELSE
        Terminal Should Run    ${outcome}
    END
    The User's Data Should Be There
