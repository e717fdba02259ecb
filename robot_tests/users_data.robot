*** Settings ***
Documentation     What the user has saved is theirs: whatever happens to the software, it stays.
Resource          terminal.resource
Test Setup        A Registered Terminal With A User's Data


*** Test Cases ***
What The User Has Saved Survives A Power Cut
    Restart Terminal
    The User's Data Should Be There

What The User Has Deleted Stays Deleted
    [Tags]    qemu
    Type Command    pb del 2
    Restart Terminal
    Phonebook Should Contain    Alice
    Phonebook Should Not Contain    Bob

No Bit Of It Changes In An Update
    ${before} =    Read The NOR
    Update Terminal    1.1.0
    The NOR Should Be As It Was    ${before}    userdata
    The User's Data Should Be There

No Bit Of It Changes In A Restoration
    ${before} =    Read The NOR
    Cut Power
    Flip Nor Bit    application    0x1000
    Power On
    Restore Terminal    1.1.0
    The NOR Should Be As It Was    ${before}    userdata
    The User's Data Should Be There

The User Saves An Entry While The Update Comes
    Start Update    1.1.0
    Wait For Line On Uart    update: received 20 %    timeout=5 min
    Add Phonebook Entry    Carol    999
    Wait For Update    succeeded
    The User's Data Should Be There
    Phonebook Should Contain    Carol

New Software Finds What Old Software Has Saved
    [Documentation]    1.1.0 sorts the phonebook and can search it.
    Update Terminal    1.1.0
    ${found} =    Type Command    find ali
    Should Contain    ${found}    Alice

A Message From The Server Reaches The User
    [Tags]    qemu
    Send Text Message    Your terminal has news
    Wait For Line On Uart    message: Your terminal has news    timeout=2 min
