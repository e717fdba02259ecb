*** Settings ***
Documentation     Images that must not run: refused while they are in SRAM, with a reason, and nothing
...               is lost. The server believes that they are good.
Resource          terminal.resource
Test Template     A Bad Image Is Refused


*** Test Cases ***                  SPOILED               RESULT
An Image With A Wrong Byte          corrupted             IMAGE_HASH_WRONG
An Image That Ends Early            truncated             IMAGE_MALFORMED
A File That Is No Image             not_an_image          IMAGE_MALFORMED
An Image With A Wrong Signature     signature_wrong       SIGNATURE_WRONG
    [Tags]    qemu
An Image That Someone Else Signed   signed_by_another     SIGNATURE_WRONG
An Image For Other Hardware         for_other_hardware    OTHER_HARDWARE
An Image Larger Than Its Place      too_large             TOO_LARGE

An Image Older Than What Ran Before
    [Template]    NONE
    A Registered Terminal With A User's Data
    Update Terminal    1.1.0
    Wait For Registration
    ${before} =    Read The NOR
    Publish    1.0.0    spoiled=older_than_it_says
    Start Update    1.0.0    downgrade=True
    Wait For Update    failed
    Update Should Have Ended With    OLDER_THAN_COUNTER
    The NOR Should Be As It Was    ${before}
    Terminal Should Run    1.1.0

An Older Image That Somebody Put Into The NOR
    [Tags]    qemu
    [Template]    NONE
    A Registered Terminal With A User's Data
    Update Terminal    1.1.0
    Cut Power
    Put Image Into Nor    1.0.0
    Power On
    Wait For Restoration State    older than the security counter


*** Keywords ***
A Bad Image Is Refused
    [Arguments]    ${spoiled}    ${result}
    Start Terminal    installed=1.0.0
    Wait For Registration
    Add Phonebook Entry    Alice    +441632960123
    Add Phonebook Entry    Bob    112
    ${before} =    Read The NOR
    Publish    1.1.0    spoiled=${spoiled}
    Start Update    1.1.0
    ${said} =    Wait For Line On Uart    update: (refused|failed), .+    timeout=5 min    treatAsRegex=true
    Log    ${said.Line}
    Run For    1 s
    Update Should Be    refused    failed
    Update Should Have Ended With    ${result}
    The NOR Should Be As It Was    ${before}
    The Terminal Should Be None The Worse For It
