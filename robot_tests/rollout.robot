*** Settings ***
Documentation     A release for a whole fleet: Ada makes a rollout, Bob approves it, and the server
...               updates the terminals in groups. The terminals are simulated, the server is not.
...
...               ``--variable TERMINALS:2000`` has a larger fleet.
Library           ../tests/rollout_fleet.py
Test Setup        Begin    ${TERMINALS}
Test Teardown     End


*** Variables ***
${TERMINALS}      ${200}


*** Test Cases ***
A Release Reaches The Whole Fleet, Group By Group
    [Tags]    qemu
    Make Rollout    ada    error=5
    Let Fail    percent=3
    Updates Should Be    0
    Do With Rollout    bob    approve
    Wait For State    finished
    Only The Failing Should Have Failed
    Nobody Should Have Been Asked Twice
    History Should Be
    ...    ada created    bob approved
    ...    server begun    server begun    server begun    server finished

A Release That Fails Too Often Is Stopped, And The Rest Of The Fleet Never Sees It
    Make Rollout    ada    error=2
    Let Fail    percent=3
    Do With Rollout    bob    approve
    Wait For State    stopped
    It Should Have Stopped Where It Must    error=2
    Wait Until Nothing Is Under Way
    It Should Have Stopped Where It Must    error=2

Who Makes A Rollout Does Not Approve It
    Make Rollout    ada    error=5
    Run Keyword And Expect Error    *somebody else has to approve it*    Do With Rollout    ada    approve
    Updates Should Be    0

A Server That Is Killed Goes On, And Asks Nobody Twice
    Make Rollout    ada    error=5
    Let Fail    percent=3
    Do With Rollout    bob    approve
    Kill Server
    Wait For Successes    percent=10
    Kill Server
    Wait For Successes    percent=40
    Kill Server
    Wait For State    finished
    Only The Failing Should Have Failed
    Nobody Should Have Been Asked Twice

What Is Paused Waits, And Goes On
    Make Rollout    ada    error=5
    Do With Rollout    bob    approve
    Do With Rollout    ada    pause
    Wait Until Nothing Is Under Way
    Kill Server
    Wait For State    paused
    Do With Rollout    ada    resume
    Wait For State    finished
    Wait For Successes    percent=100
    Nobody Should Have Been Updated Twice

A Terminal Is Updated Only When Its User Has Called
    Make Rollout    ada    error=5    groups=10,100    success=${50}    consent=${True}
    Do With Rollout    bob    approve
    Wait For Asked    percent=10
    Kill Server
    Updates Should Be    0
    Users Call    percent=50
    Kill Server
    Wait For Successes    percent=5
    Wait For Asked    percent=100
    Only Who Has Called Should Have Been Updated
    Users Call    percent=100
    Wait For State    finished
    Only Who Has Called Should Have Been Updated
    Nobody Should Have Been Asked Twice
    Wait For Successes    percent=100
