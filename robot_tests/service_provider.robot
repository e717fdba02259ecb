*** Settings ***
Documentation     The service provider's side, in the order of fig. 2: software information is collected
...               (S100) and analysed (S101), the user is told and calls (S102), data is transmitted (S103)
...               until that has succeeded (S104); the user's data is there again, and nowhere else.
Resource          terminal.resource
Test Setup        A Terminal In The Field


*** Test Cases ***
S100: Software Information Is Collected When The Terminal Registers
    [Tags]    qemu
    Server Should Know That Terminal Runs    1.0.0
    Server Should Know Its Software    unbrick-terminal    1.0.0+0    built=2026-01-12T09:00:00Z

S101: It Is Compared With The Latest, And The Upgrade Is Prepared
    [Tags]    qemu
    Server Should Have Judged    current
    Publish    1.1.0
    Server Should Have Judged    upgrade    1.1.0+0 is newer than 1.0.0+0
    What Differs Should Be Prepared    1.1.0

The User Is Told By Text Message
    Open Customer Center
    Publish    1.1.0
    Wait For Line On Uart    message: Version 1.1.0 of your terminal's software is ready    timeout=2 min

S102: The User Calls, Hears The Menu And Presses 1
    A User Who Was Told
    Write Line To Uart    call
    Wait For Line On Uart    call: Welcome. Version 1.1.0 is ready    timeout=2 min
    Wait For Line On Uart    Press 1 to upgrade now
    Write Line To Uart    1
    Wait For Line On Uart    The upgrade to 1.1.0 begins when this call has ended    timeout=2 min
    Write Line To Uart    hang up
    Take Up Update
    Wait For Step    prepare

A Wrong Key Starts Nothing
    [Tags]    qemu
    A User Who Was Told
    Write Line To Uart    call
    Wait For Line On Uart    Press 1 to upgrade now    timeout=2 min
    Write Line To Uart    7
    Wait For Line On Uart    7 is not one of the choices    timeout=2 min
    Write Line To Uart    0
    Wait For Line On Uart    Goodbye    timeout=2 min
    No Update Should Have Begun

S103: The Upgrade Is Transmitted When The User Has Called
    A User Who Was Told
    The User Calls For The Upgrade
    Wait For Commanded Update    timeout=10 min
    All Steps Should Be Done
    Terminal Should Run    1.1.0

S104: What Was Not Transmitted Well Is Transmitted Again
    [Tags]    minutes
    A User Who Was Told
    Make Link Bad    drop=0.1    corrupt=0.05    seed=4
    The User Calls For The Upgrade
    Wait For Commanded Update    timeout=1 h
    Link Should Have Failed
    Terminal Should Run    1.1.0
    The User's Data Should Be There

The User's Data Is Kept While The Software Is Replaced, And Nowhere Afterwards
    [Tags]    qemu
    A User Who Was Told
    The User Calls For The Upgrade
    Wait For Step    erase
    Backup Should Be Kept
    Wait For Commanded Update    timeout=10 min
    No Personal Data Should Be Left
    Audit Should Say    backup kept    backup read    backup deleted
    The User's Data Should Be There

New Software That Keeps The Data In Another Way Has It, Too
    Publish    2.0.0
    Start Commanded Update    2.0.0
    Wait For Commanded Update    timeout=10 min
    Terminal Should Run    2.0.0
    The User's Data Should Be There
    No Personal Data Should Be Left


*** Keywords ***
A Terminal In The Field
    [Documentation]    It runs 1.0.0, which the server knows, and its user has saved two entries.
    Start Terminal    installed=1.0.0
    Prepare Upgrades Before They Are Asked For
    Publish    1.0.0
    Wait For Registration
    Add Phonebook Entry    Alice    +441632960123
    Add Phonebook Entry    Bob    112

A User Who Was Told
    Open Customer Center
    Publish    1.1.0
    Wait For Line On Uart    message: Version 1.1.0    timeout=2 min

The User Calls For The Upgrade
    Write Line To Uart    call
    Wait For Line On Uart    Press 1 to upgrade now    timeout=5 min
    Write Line To Uart    1
    Take Up Update    timeout=5 min
    Wait For Line On Uart    begins when this call has ended    timeout=5 min
    Write Line To Uart    hang up
