"""The customer center's page over HTTP: what each role sees and may do, calls, texts, updates."""

from __future__ import annotations

import html
import re
from dataclasses import replace

import pytest
from center_world import (
    IMAGE,
    PASSWORD,
    PHONE,
    SERIAL,
    Browser,
    World,
    begin_session,
    carry_out,
    go_on,
    roll_out,
    words,
)
from server_world import HARDWARE, inspect, make_image

from unbrick.center.operators.records import Deed
from unbrick.center.page.rollouts import BLANK
from unbrick.server.records.calls import Call
from unbrick.server.records.people import Actor
from unbrick.server.records.sessions import Backup, PlannedStep, SessionState, StepKind, StepState
from unbrick.server.records.updates import MessageState, UpdateState
from unbrick.wire.messages import Kind, TerminalState


@pytest.fixture
def world() -> World:
    made = World()
    made.register()
    made.publish()
    made.subscribe()
    return made


def test_terminals_at_a_glance(world: World) -> None:
    world.register("T-0002", version="1.1.0+0", digest=world.records.images()[0].digest)
    world.register("T-0003", state=TerminalState.RESTORATION, hardware_id="other")
    page = words(world.browser("cleo").get("/"))
    assert "3 terminals" in page
    assert "Ada Lovelace" in page
    assert PHONE in page
    _, _, listed = page.partition("Last seen")
    order = [
        listed.index(text) for text in ("waits to be restored", "1.1.0 is ready", "up to date")
    ]
    assert order == sorted(order), "what needs somebody comes first"


@pytest.mark.parametrize(
    ("search", "found"),
    [("T-0001", 1), ("ada", 1), ("0123", 1), ("t-00", 2), ("1.0.0", 2), ("nothing", 0)],
)
def test_searching(world: World, search: str, found: int) -> None:
    world.register("T-0002")
    page = world.browser("cleo").http.get("/", params={"q": search}).text
    assert len(re.findall('href="/terminals/', page)) == found


def list_serials(page: str) -> list[str]:
    return re.findall('href="/terminals/([^"]+)"', page)


def test_the_list_is_read_page_by_page_and_each_terminal_is_there_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unbrick.center.page.terminal_list.MOST_TERMINALS", 4)
    current = world.records.images()[0].digest
    for number in range(2, 9):
        world.register(f"T-000{number}")
    for number in range(9):
        world.register(f"C-{number}", version="1.1.0+0", digest=current)
    for serial in ("T-0003", "T-0007"):
        world.core.start_update(serial, "1.1.0", world.now)
    world.register("R-1", state=TerminalState.RESTORATION, hardware_id="other")
    browser = world.browser("cleo")
    for name in ("Alan", "Ada Byron"):
        world.register(f"of {name}")
    page, seen, pages = browser.get("/"), list[str](), 0
    while True:
        assert "20 terminals" in words(page)
        some = list_serials(page)
        assert len(some) <= 4
        seen += some
        pages += 1
        assert pages <= 5, "it comes to an end"
        following = re.search('href="([^"]+)" rel="next"', page)
        if following is None:
            break
        page = browser.get(html.unescape(following.group(1)))
    everyone = {item.serial.replace(" ", "~20") for item in world.records.terminals()}
    assert len(seen) == 20
    assert set(seen) == everyone
    assert seen[:3] == ["R-1", "T-0003", "T-0007"], "what needs somebody comes first"
    assert set(seen[-9:]) == {f"C-{number}" for number in range(9)}
    assert len(list_serials(browser.get("/?after=gone.T-0001"))) == 4, "from the beginning again"


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("kind=bad", ["R-1"]),
        ("kind=busy", ["T-0003"]),
        ("kind=due", ["T-0001", "T-0002"]),
        ("kind=good", ["C-1", "T-0004"]),
        ("kind=nonsense&version=1.1.0%2B0", ["C-1", "T-0004"]),
        ("kind=due&version=1.1.0%2B0", []),
        ("q=ada", ["T-0001", "T-0003", "T-0004"]),
        ("q=ada&kind=due", ["T-0001"]),
        ("q=ada&kind=busy", ["T-0003"]),
        ("q=ada&version=1.1.0%2B0", ["T-0004"]),
        ("q=up+to+date", ["C-1", "T-0004"]),
        ("q=updated", ["T-0003"]),
        ("q=ready", ["T-0001", "T-0002"]),
        ("q=t-0", ["T-0001", "T-0002", "T-0003", "T-0004"]),
        ("q=1.0.0", ["R-1", "T-0001", "T-0002", "T-0003"]),
    ],
)
def test_the_list_is_filtered_and_counted(world: World, query: str, found: list[str]) -> None:
    current = world.records.images()[0].digest
    for serial in ("T-0002", "T-0003"):
        world.register(serial)
    for serial in ("C-1", "T-0004"):
        world.register(serial, version="1.1.0+0", digest=current)
    world.register("R-1", state=TerminalState.RESTORATION, hardware_id="other")
    actor = Actor("registrar", world.now)
    (ada,) = world.records.subscribers()
    for serial in ("T-0003", "T-0004"):
        world.records.assign(serial, ada.id, actor)
    world.core.start_update("T-0003", "1.1.0", world.now)
    page = world.browser("cleo").get(f"/?{query}")
    assert sorted(list_serials(page)) == found
    assert f"{len(found)} terminal" in words(page)


def test_an_engineer_does_not_see_nor_find_who_a_terminal_belongs_to(world: World) -> None:
    browser = world.browser("enno")
    for path in ("/", f"/terminals/{SERIAL}", "/?q=ada"):
        page = browser.get(path)
        assert "Ada" not in page
        assert PHONE not in page
    assert "/terminals/" not in browser.get("/?q=ada")
    assert Deed.LOOKED not in [entry.deed for entry in world.deeds]


def test_looking_at_a_subscriber_is_kept_once_a_session(world: World) -> None:
    browser = world.browser("cleo")
    for _ in range(3):
        assert PHONE in browser.get(f"/terminals/{SERIAL}")
    looks = [entry for entry in world.deeds if entry.deed is Deed.LOOKED]
    assert [(entry.operator, entry.serial) for entry in looks] == [("cleo", ""), ("cleo", SERIAL)]
    assert all(PHONE not in entry.text for entry in looks)


def test_what_comes_from_a_terminal_is_text_and_no_markup(world: World) -> None:
    serial = "<b>&/..?#'\""
    world.register(serial, name="<script>x</script>", version="1.0.0+0")
    browser = world.browser("cleo")
    page = browser.get("/")
    assert "<b>&" not in page
    assert "<script>x" not in page
    address = re.search(r'href="(/terminals/~3cb~3e[^"]+)"', page)
    assert address
    assert "&lt;b&gt;" in browser.get(address.group(1))


def test_a_terminal_that_nobody_knows_and_an_address_that_is_none(world: World) -> None:
    browser = world.browser("cleo")
    for path in (
        "/terminals/nobody",
        "/terminals/~ff",
        "/terminals/€",
        "/calls/7",
        f"/calls/{10**30}",
        "/nothing",
    ):
        response = browser.http.get(path)
        assert response.status_code == 404
        assert 'role="alert"' in response.text


# Calls


def test_claim_b4_a_clerk_plays_a_call_and_the_caller_presses_1(world: World) -> None:
    with world.browser("cleo") as browser:
        page = words(browser.order(f"/terminals/{SERIAL}/calls"))
        assert "Version 1.1.0 is ready for your terminal, which runs 1.0.0" in page
        assert "call in progress" in browser.get("/")
        page = words(browser.order("/calls/1/key", key="1"))
        assert "The upgrade to 1.1.0 begins when this call has ended" in page
        (update,) = world.records.updates(SERIAL)
        assert (update.version, update.state) == ("1.1.0+0", UpdateState.PENDING)
        page = words(browser.order("/calls/1/key", key="0"))
        assert "upgrade started" in page
    (call,) = world.records.calls()
    assert (call.caller, call.keys, call.outcome) == ("cleo", "10", "upgrade started")
    assert call.text.startswith("center: Welcome.")
    assert re.search(
        r"server: told to upgrade to 1.1.0\+0\n"
        r"server: not by commands, but by a file: what T-0001 runs is not published here.*\n"
        r"server: has begun\n",
        call.text,
    )
    deeds = [entry.deed for entry in world.deeds]
    assert deeds == [Deed.SIGNED_IN, Deed.LOOKED, Deed.CALLED]


@pytest.mark.parametrize(("way", "commanded"), [("commanded", True), ("staged", False)])
def test_claim_b4_a_call_starts_a_commanded_update_where_that_is_wanted_and_can_be(
    world: World, way: str, *, commanded: bool
) -> None:
    base = make_image("1.0.0+0")
    world.publish(base)
    world.register(digest=inspect(base).digest)
    world.center.desk.way = way
    with world.browser("cleo") as browser:
        browser.order(f"/terminals/{SERIAL}/calls")
        assert "begins when this call has ended" in browser.order("/calls/1/key", key="1")
    (update,) = world.records.updates(SERIAL)
    assert update.commanded is commanded
    assert ("server: by commands\n" in world.records.calls()[0].text) is commanded


def test_an_engineer_chooses_the_way(world: World) -> None:
    base = make_image("1.0.0+0")
    world.publish(base)
    world.register(digest=inspect(base).digest)
    browser = world.browser("enno")
    assert re.search(r'value="commanded" selected', browser.get(f"/terminals/{SERIAL}"))
    start = f"/terminals/{SERIAL}/updates"
    assert browser.post(start, version="1.1.0", way="flying").status_code == 400
    browser.order(start, version="1.1.0", way="commanded")
    browser.order("/updates/1/cancel")
    browser.order(start, version="1.1.0", way="staged")
    assert [update.commanded for update in world.records.updates()] == [True, False]
    assert world.deeds[1].text == "to 1.1.0, commanded"


def test_a_wrong_key_and_hanging_up(world: World) -> None:
    with world.browser("cleo") as browser:
        browser.order(f"/terminals/{SERIAL}/calls")
        assert "5 is not one of the choices" in browser.order("/calls/1/key", key="5")
        assert "hung up" in browser.order("/calls/1/hang-up")
        response = browser.post("/calls/1/key", key="1")
        assert (response.status_code, "call 1 is over" in response.text.lower()) == (409, True)
    assert world.records.updates(SERIAL) == []
    assert world.records.calls()[0].outcome == "hung up"


@pytest.mark.parametrize("key", ["", "11", "x", "<b>", "٣"])
def test_a_key_that_no_telephone_has(world: World, key: str) -> None:
    with world.browser("cleo") as browser:
        browser.order(f"/terminals/{SERIAL}/calls")
        assert browser.post("/calls/1/key", key=key).status_code == 409
        assert world.records.calls()[0].keys == ""


def test_an_upgrade_that_became_unnecessary_between_menu_and_key(world: World) -> None:
    with world.browser("cleo") as browser:
        browser.order(f"/terminals/{SERIAL}/calls")
        world.register(version="1.1.0+0", digest=world.records.images()[0].digest)
        page = browser.order("/calls/1/key", key="1")
        assert "there is nothing newer for it" in words(page)
    assert world.records.updates(SERIAL) == []


def test_an_upgrade_that_is_under_way(world: World) -> None:
    world.core.start_update(SERIAL, "1.1.0", 0.0)
    with world.browser("cleo") as browser:
        page = browser.order(f"/terminals/{SERIAL}/calls")
    assert "is being upgraded to 1.1.0 at this moment" in words(page)


def test_one_call_a_terminal(world: World) -> None:
    with world.browser("cleo") as browser:
        browser.order(f"/terminals/{SERIAL}/calls")
        response = browser.post(f"/terminals/{SERIAL}/calls")
        assert response.status_code == 409
        assert "call 1 about" in response.text.lower()


def test_a_server_that_is_not_there(world: World) -> None:
    world.server.silent = world.server.deaf = True
    with world.browser("cleo") as browser:
        browser.order(f"/terminals/{SERIAL}/calls")
        page = words(browser.order("/calls/1/key", key="1"))
    assert "I cannot reach the upgrade service" in page
    assert "no answer from the server" in page


def test_a_server_that_heard_but_did_not_answer_has_begun(world: World) -> None:
    world.server.silent = True
    with world.browser("cleo") as browser:
        browser.order(f"/terminals/{SERIAL}/calls")
        page = words(browser.order("/calls/1/key", key="1"))
    assert "The upgrade to 1.1.0 begins when this call has ended" in page


def test_a_call_that_the_center_did_not_survive(world: World) -> None:
    with world.browser("cleo") as browser:
        browser.order(f"/terminals/{SERIAL}/calls")
        assert world.records.open_calls()
    assert world.records.open_calls() == []
    assert world.records.calls()[0].outcome == "broken off"
    # Killed, it could not say so: the next one does.
    world.records.save_call(replace(world.records.calls()[0], outcome="", ended=None))
    World(records=world.records, core=world.core)
    assert world.records.calls()[0].outcome == "broken off"


# Text messages


def test_a_message_and_whether_it_was_delivered(world: World) -> None:
    browser = world.browser("cleo")
    page = browser.get(f"/terminals/{SERIAL}")
    assert "Version 1.1.0 of your terminal" in page, "the text that is proposed"
    page = browser.order(f"/terminals/{SERIAL}/messages", text=" Please call us. ")
    assert "queued Please call us." in words(page)
    (message,) = world.records.messages(SERIAL)
    world.records.save_message(replace(message, state=MessageState.DELIVERED))
    assert "delivered Please call us." in words(browser.get(f"/terminals/{SERIAL}"))
    (entry,) = [entry for entry in world.deeds if entry.deed is Deed.SENT]
    assert "Please" not in entry.text


@pytest.mark.parametrize("text", ["", "x" * 161, "a\nb", "ä" * 81])
def test_a_text_that_cannot_be_sent(world: World, text: str) -> None:
    response = world.browser("cleo").post(f"/terminals/{SERIAL}/messages", text=text)
    assert response.status_code == 409
    assert world.records.messages() == []


# Updates


def test_an_update_in_progress_with_its_steps(world: World) -> None:
    browser = world.browser("enno")
    browser.order(f"/terminals/{SERIAL}/updates", version="1.1.0+0")
    (update,) = world.records.updates()
    page = browser.get(f"/terminals/{SERIAL}")
    assert "to be rewritten" in page
    world.records.save_update(replace(update, state=UpdateState.REWRITING))
    page = browser.get(f"/terminals/{SERIAL}")
    assert re.search(r'<li class="now" aria-current="step">being rewritten', page)
    assert len(re.findall('<li class="done">', page)) == 4
    assert len(re.findall('<li class="application rewriting"', page)) == 1, "5,000 bytes: one block"
    world.records.save_update(replace(update, state=UpdateState.SUCCEEDED))
    assert '<li class="application done"' in browser.get(f"/terminals/{SERIAL}")


def test_older_software_is_ordered_with_the_box_ticked_and_not_without(world: World) -> None:
    world.core.publish(make_image("0.9.0+0"), 0.0)
    browser = world.browser("enno")
    path = f"/terminals/{SERIAL}"
    assert 'name="downgrade"' in browser.get(path)
    refused = browser.post(f"{path}/updates", version="0.9.0+0", way="staged")
    assert refused.status_code == 409
    assert "0.9.0+0 is older than 1.0.0+0" in html.unescape(refused.text)
    assert "as a downgrade" in html.unescape(refused.text)
    assert world.records.updates() == []
    browser.order(f"{path}/updates", version="0.9.0+0", way="staged", downgrade="yes")
    (update,) = world.records.updates()
    assert update.downgrade
    assert "a downgrade from 1.0.0+0" in browser.get(path)


def test_how_far_a_transfer_is(world: World) -> None:
    (image,) = world.records.images()
    update = world.core.start_update(SERIAL, "1.1.0", 0.0)
    world.records.save_update(replace(update, state=UpdateState.TRANSFERRING))
    world.core._files._sent[update.id] = image.file_size // 2
    assert world.center.views.fingerprint("terminals") == world.center.views.fingerprint(
        "terminals"
    )
    before = world.center.views.fingerprint("terminals")
    with world.browser("enno") as browser:
        assert browser.http.portal is not None
        browser.http.portal.call(world.center.desk.refresh)
        assert 'value="50"' in browser.get(f"/terminals/{SERIAL}")
    assert world.center.views.fingerprint("terminals") != before


def test_how_far_a_transfer_of_a_differential_file_is(world: World) -> None:
    update = world.core.start_update(SERIAL, "1.1.0", 0.0)
    base = inspect(make_image("1.0.0+0")).digest
    world.records.add_difference(base, update.digest, bytes(130))
    under_way = replace(
        update, state=UpdateState.TRANSFERRING, kind=Kind.DIFFERENTIAL, from_digest=base
    )
    world.records.save_update(under_way)
    world.core._files._sent[update.id] = 65
    with world.browser("enno") as browser:
        assert browser.http.portal is not None
        browser.http.portal.call(world.center.desk.refresh)
        assert "50 % of 130 bytes" in browser.get(f"/terminals/{SERIAL}")


def test_abandoning_an_update(world: World) -> None:
    base = make_image("1.0.0+0")
    world.publish(base)
    world.register(digest=inspect(base).digest)
    update = world.core.start_update(SERIAL, "1.1.0", world.now, commanded=True)
    steps = world.records.steps(world.records.sessions(SERIAL)[-1].id)
    first_erase = [step.kind for step in steps].index(StepKind.ERASE)
    browser = world.browser("enno")
    where, button = f"/terminals/{SERIAL}", f'action="/updates/{update.id}/abandon"'
    page = browser.get(where)
    assert button not in page, "it can still be cancelled"
    carry_out(world, steps, first_erase, first_erase)
    page = browser.get(where)
    assert button in page
    assert "Cancel the update" not in page
    assert button not in world.browser("cleo").get(where)
    session_id, actor = steps[0].session_id, Actor("server", world.now)
    sealed = Backup(0, session_id, SERIAL, 77, b"c" * 32, world.now)
    world.records.add_backup(sealed, b"s" * 77, actor)
    page = browser.order(f"/updates/{update.id}/abandon")
    assert button not in page
    assert "given up by a person" in page
    assert world.records.backups() == []
    assert browser.post(f"/updates/{update.id}/abandon").status_code == 409
    assert browser.post("/updates/77/abandon").status_code == 404
    deeds = [(entry.operator, entry.deed, entry.text) for entry in world.deeds]
    assert deeds.count(("enno", Deed.ABANDONED, f"update {update.id}")) == 1


def test_cancelling_an_update(world: World) -> None:
    browser = world.browser("enno")
    browser.order(f"/terminals/{SERIAL}/updates", version="1.1.0")
    page = browser.order("/updates/1/cancel")
    assert "cancelled" in page
    assert world.records.updates()[0].state is UpdateState.CANCELLED
    assert browser.post("/updates/1/cancel").status_code == 409
    assert browser.post("/updates/7/cancel").status_code == 404
    deeds = [entry.deed for entry in world.deeds]
    assert deeds == [Deed.SIGNED_IN, Deed.STARTED, Deed.CANCELLED]


def test_what_the_server_refuses_is_said(world: World) -> None:
    world.publish(make_image("1.2.0+0", hardware_id="other"))
    response = world.browser("enno").post(f"/terminals/{SERIAL}/updates", version="1.2.0")
    assert response.status_code == 409
    assert "1.2.0+0 is for other" in response.text
    assert Deed.STARTED not in [entry.deed for entry in world.deeds]


def change(world: World, steps: list[PlannedStep], done: int, now: int | None = None) -> str:
    """The page of the terminal when so many steps are done, and one is under way."""
    carry_out(world, steps, done, now)
    return world.browser("enno").get(f"/terminals/{SERIAL}")


def stages(page: str) -> list[str]:
    """The classes of the stages on a page, but for those to come."""
    block = re.search(r'<ol class="stages">(.*?)</ol>', page, re.DOTALL)
    assert block
    return [name for name in re.findall(r'<li class="(\w+)"', block.group(1)) if name != "later"]


def test_a_commanded_update_step_by_step(world: World) -> None:
    steps = begin_session(world)
    topic = f"terminal:{SERIAL}"
    before = world.center.views.fingerprint(topic)
    page = change(world, steps, 0, 0)
    assert world.center.views.fingerprint(topic) != before
    assert stages(page) == ["now"]
    assert "0 of 13 steps, now: back up" in words(page)
    assert page.count('class="application due"') == 2
    page = change(world, steps, 2, 2)
    assert stages(page) == ["done", "done", "now"]
    assert "now: erase 0x100000, 262,144 bytes" in words(page)
    assert re.search(r'class="application erasing" title="application, 1024 KiB', page)
    page = change(world, steps, 3)
    assert re.search(r'class="application erased" title="application, 1024 KiB', page)
    page = change(world, steps, 4, 4)
    assert "write 0x100000, 3,584 bytes, 1 of 4 commands: sent" in words(page)
    assert re.search(
        r'application writing" title="application, 1024 KiB.*being written, 25 %"', page
    )
    assert re.search(r'class="application due" title="application, 1280 KiB', page)
    page = change(world, steps, 7)
    assert re.search(r'class="application done" title="application, 1024 KiB', page)
    assert stages(change(world, steps, 10, 10)) == ["done"] * 4 + ["now"]
    page = change(world, steps, 13)
    assert stages(page) == ["done"] * 7
    assert page.count('class="application done"') == 2


def test_a_step_that_failed_and_what_was_left_out(world: World) -> None:
    steps = begin_session(world)
    change(world, steps, 3)
    world.records.save_step(
        replace(
            steps[3], session_id=steps[0].session_id, state=StepState.WAITING, tries=2, result=23
        )
    )
    page = world.browser("enno").get(f"/terminals/{SERIAL}")
    assert "(tried again 2 times, program failed)" in words(page)
    session = world.records.session(steps[0].session_id)
    assert session
    failed = replace(session, state=SessionState.FAILED, text="program failed")
    world.records.save_session(failed)
    for step in steps[3:]:
        world.records.save_step(replace(step, state=StepState.SKIPPED))
    page = world.browser("enno").get(f"/terminals/{SERIAL}")
    assert stages(page) == ["done", "done", "done", *["skipped"] * 4]
    assert 'class="badge bad">failed' in page
    assert 'class="application done"' not in page
    assert "Cancel the update" not in page


def test_an_update_is_under_way_until_the_users_data_is_back(world: World) -> None:
    steps = begin_session(world)
    (image, _) = world.records.images()
    world.register(version=image.version, digest=image.digest)
    (update,) = world.records.updates()
    assert update.state is UpdateState.SUCCEEDED
    browser = world.browser("cleo")
    assert "gets its user's data back" in html.unescape(browser.get("/"))
    topics = ("terminals", f"terminal:{SERIAL}")
    before = [world.center.views.fingerprint(topic) for topic in topics]
    session = world.records.session(steps[0].session_id)
    assert session
    for open_ in world.records.unfinished_sessions():
        world.records.save_session(replace(open_, state=SessionState.SUCCEEDED))
    assert "up to date" in browser.get("/")
    after = [world.center.views.fingerprint(topic) for topic in topics]
    assert all(one != other for one, other in zip(before, after, strict=True))
    world.register(state=TerminalState.COMMANDED)
    assert "runs its resident program" in browser.get("/")


def test_where_the_users_data_is_and_never_what_it_says(world: World) -> None:
    steps = begin_session(world)
    session_id = steps[0].session_id
    page = words(change(world, steps, 0))
    assert "on the terminal alone" in page
    secret = b"sealed phonebook of Ada"
    backup = Backup(0, session_id, SERIAL, len(secret), b"c" * 32, world.now)
    actor = Actor("server", world.now, "before the first erase")
    topic = f"terminal:{SERIAL}"
    before = world.center.views.fingerprint(topic)
    kept = world.records.add_backup(backup, secret, actor)
    assert world.center.views.fingerprint(topic) != before
    for name in ("cleo", "enno", "aude"):
        page = world.browser(name).get(f"/terminals/{SERIAL}")
        assert "23 bytes, which only the terminal can read" in words(page)
        assert "backed up, sealed by the terminal" in page
        assert "sealed phonebook" not in page
        assert "63" * 32 not in page
    world.records.read_backup(kept.id, Actor("server", world.now))
    world.records.delete_backup(kept.id, Actor("server", world.now))
    page = words(world.browser("enno").get(f"/terminals/{SERIAL}"))
    assert "on the terminal alone" in page
    told = ["backed up", "on its way back", "deleted from the database"]
    assert sorted(told, key=page.index) == told
    log = words(world.browser("aude").get("/log"))
    assert "server backup deleted" in log


def test_calls_and_the_log_are_read_page_by_page(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unbrick.center.page.views.MOST_ROWS", 3)
    for number in range(1, 8):
        world.records.add_call(Call(0, SERIAL, "cleo", "", "hung up", "", number, number))
    browser = world.browser("aude")
    for _ in range(5):
        browser.http.get(f"/terminals/{SERIAL}")
    seen = []
    address = "/calls"
    while address:
        page = browser.get(address)
        seen += re.findall(r">Call (\d+)</a>", page)
        older = re.search(r'href="(/calls\?before=\d+)"', page)
        address = older.group(1) if older else ""
    assert seen == list("7654321")
    for name, entries in (("data", world.records.audit()), ("deeds", world.deeds)):
        assert len(entries) < 3 or re.search(rf'href="/log\?{name}=\d+#', browser.get("/log"))
        page = browser.get(f"/log?{name}={2**70}&{name}=x")
        assert "Log" in page
    assert browser.get("/log?deeds=2").count('data-label="Operator"') == 1
    assert len(world.accounts.entries(100, before=3)) == 2


def test_the_log_shows_what_operators_did_and_what_was_done_to_personal_data(world: World) -> None:
    world.browser("cleo").get(f"/terminals/{SERIAL}")
    page = words(world.browser("aude").get("/log"))
    assert "cleo looked at a subscriber" in page
    assert "registrar subscriber added" in page
    assert PHONE not in page


def test_an_engineer_rules_on_a_rollout_and_everybody_may_look(world: World) -> None:
    roll_out(world, 40, name="May", error=20, percents=(50, 100))
    engineer = world.browser("enno")
    assert "There is no rollout" not in engineer.get("/rollouts")
    assert "running" in engineer.order("/rollouts/1/approve")
    assert world.records.rollouts.history(1)[-1].actor == "enno"
    go_on(world, succeeded=3, failed=5)
    for name in ("cleo", "aude"):
        page = words(world.browser(name).get("/rollouts/1"))
        assert "stopped group 1: 5 of 20 failed, more than 20 %" in page
        assert "3 succeeded, 5 failed, 12 waiting" in page
        assert "Resume" not in page
    assert "What to do Resume Abandon" in words(engineer.get("/rollouts/1"))
    assert "running" in engineer.order("/rollouts/1/resume")
    refused = engineer.post("/rollouts/1/approve")
    assert refused.status_code == 409
    assert "is running, so it cannot be approved" in refused.text
    assert engineer.post("/rollouts/1/burn").status_code == 404
    assert engineer.http.get("/rollouts/9").status_code == 404
    last = world.deeds[-1]
    assert (last.deed, last.text) == (Deed.ROLLED_OUT, "resume rollout 1")
    log = words(world.browser("aude").get("/log"))
    assert "enno rollout resumed rollout 1" in log
    assert "enno ruled on a rollout resume rollout 1" in log


IMAGE_FIELD = f"1.1.0+0 {HARDWARE}"


def test_an_engineer_makes_a_rollout(world: World) -> None:
    world.register("T-2")
    engineer = world.browser("enno")
    assert 'href="/rollouts/new"' in engineer.get("/rollouts")
    assert 'href="/rollouts/new"' not in world.browser("cleo").get("/rollouts")
    assert f'<option value="{IMAGE_FIELD}">' in engineer.get("/rollouts/new")
    fields = {**BLANK, "image": IMAGE_FIELD, "name": "May", "serials": "T-?", "groups": "50,100 %"}
    fields["not_before"], fields["consent"] = "2023-12-01T03:00", "yes"
    page = words(engineer.order("/rollouts", **fields))
    assert "May rollout 1" in page
    assert "1, with serials T-?" in page
    assert "0 users were asked, 0 have consented" in page
    (made,) = world.records.rollouts.all()
    assert (made.created_by, made.percents, made.success, made.error) == ("enno", (50, 100), 90, 5)
    assert made.not_before == 1701399600
    assert not made.commanded
    assert not made.downgrade
    assert made.consent
    last = world.deeds[-1]
    assert (last.deed, last.text) == (Deed.ROLLED_OUT, "create rollout 1")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"image": ""}, "No software is chosen: choose what is to be rolled out."),
        ({"groups": "many"}, "The groups are no percentages: write them as 5%, 25%, 100%."),
        ({"groups": "100%,5%"}, "100"),
        ({"success": "101"}, "The limit of success is no percentage: write 0 to 100."),
        ({"not_before": "soon"}, "That is no time: write it as 2026-12-01T03:00."),
        ({"serials": "nobody-*"}, "No terminal that the filter takes needs 1.1.0"),
        ({"image": "9.9.9 there"}, "There is no image 9.9.9"),
    ],
)
def test_a_rollout_that_cannot_be_is_said_above_the_form(
    world: World, changes: dict[str, str], why: str
) -> None:
    fields = {**BLANK, "image": IMAGE_FIELD, "name": "<May>", "downgrade": "yes"}
    answer = world.browser("enno").post("/rollouts", **{**fields, **changes})
    assert answer.status_code == 409
    assert why in words(html.unescape(answer.text))
    assert 'value="&lt;May&gt;"' in answer.text, "what was filled in is still there"
    assert 'value="yes" checked' in answer.text
    assert world.records.rollouts.all() == []


# Who may do what

ORDERS = {
    f"/terminals/{SERIAL}/calls": {"cleo"},
    "/calls/1/key": {"cleo"},
    "/calls/1/hang-up": {"cleo"},
    f"/terminals/{SERIAL}/messages": {"cleo", "enno"},
    f"/terminals/{SERIAL}/updates": {"enno"},
    "/updates/1/cancel": {"enno"},
    "/updates/1/abandon": {"enno"},
    "/rollouts": {"enno"},
    "/rollouts/1/approve": {"enno"},
    "/rollouts/1/abandon": {"enno"},
}


@pytest.mark.parametrize("name", ["cleo", "enno", "aude"])
@pytest.mark.parametrize("path", ORDERS)
def test_each_role_may_do_its_own_and_nothing_else(world: World, path: str, name: str) -> None:
    update = world.core.start_update(SERIAL, "1.1.0", 0.0)
    roll_out(world, 1)
    rollout = world.records.rollouts.get(1)
    with world.browser("cleo") as clerk:
        clerk.order(f"/terminals/{SERIAL}/calls")
        browser = clerk if name == "cleo" else Browser(world)
        if name != "cleo":
            browser.sign_in(name)
        before = (world.records.calls(), world.records.update(update.id), world.records.messages())
        response = browser.post(path, text="hello", key="9", version="1.1.0")
        if name in ORDERS[path]:
            assert response.status_code in (200, 409)
        else:
            assert response.status_code == 403
            assert "you may not" in response.text
            after = (
                *(world.records.calls(), world.records.update(update.id)),
                world.records.messages(),
            )
            assert after == before
            assert world.records.rollouts.get(1) == rollout
            assert world.deeds[-1].deed is Deed.REFUSED


@pytest.mark.parametrize(("name", "status"), [("cleo", 403), ("enno", 403), ("aude", 200)])
def test_the_log_is_for_auditors(world: World, name: str, status: int) -> None:
    browser = world.browser(name)
    assert browser.http.get("/log").status_code == status
    assert ('href="/log"' in browser.get("/")) is (status == 200)


def test_a_page_offers_only_what_its_reader_may_do(world: World) -> None:
    offers = {"cleo": ["call", "send"], "enno": ["send", "start"], "aude": []}
    for name, expected in offers.items():
        page = world.browser(name).get(f"/terminals/{SERIAL}")
        shown = [item for item in ("call", "send", "start") if f'id="{item}-title"' in page]
        assert shown == expected


def test_every_order_needs_a_session_and_a_token(world: World) -> None:
    for path in [*ORDERS, "/sign-out"]:
        response = Browser(world).http.post(path, data={}, follow_redirects=False)
        assert (response.status_code, response.headers["location"]) == (303, "/sign-in")
        assert world.browser("cleo").http.post(path, data={"key": "1"}).status_code == 403
    assert world.records.calls() == []


def test_password_is_nowhere_in_the_log(world: World) -> None:
    Browser(world).sign_in(PASSWORD, PASSWORD)
    assert all(PASSWORD not in str(entry) for entry in world.deeds)
    assert len(IMAGE) == 5000
