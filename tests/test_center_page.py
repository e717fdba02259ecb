"""The customer center's page over HTTP: what each role sees and may do, calls, texts, updates."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from center_world import IMAGE, PASSWORD, PHONE, SERIAL, Browser, World, words
from server_world import make_image, registration

from unbrick.center.records import Deed
from unbrick.server.records import MessageState, UpdateState
from unbrick.server.user_records import Session, SessionState, Step, StepKind, StepState
from unbrick.wire.messages import TerminalState


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
    order = [page.index(text) for text in ("waits to be restored", "1.1.0 is ready", "up to date")]
    assert order == sorted(order), "what needs somebody comes first"


@pytest.mark.parametrize(
    ("search", "found"),
    [("T-0001", 1), ("ada", 1), ("0123", 1), ("t-00", 2), ("1.0.0", 2), ("nothing", 0)],
)
def test_searching(world: World, search: str, found: int) -> None:
    world.register("T-0002")
    page = world.browser("cleo").http.get("/", params={"q": search}).text
    assert len(re.findall('href="/terminals/', page)) == found


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
        assert "The upgrade to 1.1.0 has been started" in page
        (update,) = world.records.updates(SERIAL)
        assert (update.version, update.state) == ("1.1.0+0", UpdateState.PENDING)
        page = words(browser.order("/calls/1/key", key="0"))
        assert "upgrade started" in page
    (call,) = world.records.calls()
    assert (call.caller, call.keys, call.outcome) == ("cleo", "10", "upgrade started")
    assert call.text.startswith("center: Welcome.")
    assert "server: told to upgrade to 1.1.0+0\nserver: has begun\n" in call.text
    deeds = [entry.deed for entry in world.deeds]
    assert deeds == [Deed.SIGNED_IN, Deed.LOOKED, Deed.CALLED]


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
    assert "The upgrade to 1.1.0 has been started" in page


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


def test_a_commanded_update_step_by_step(world: World) -> None:
    update = world.core.start_update(SERIAL, "1.1.0", 0.0)
    draft = Session(
        *(0, update.id, SERIAL, registration().digest, update.digest, SessionState.RUNNING),
        *("", 0.0, 0.0),
    )
    steps = [
        Step(0, 0, StepKind.BACK_UP, 0, 0, StepState.DONE),
        Step(0, 1, StepKind.ERASE, 0x100000, 0x40000, StepState.DONE),
        Step(0, 2, StepKind.WRITE, 0x100000, 0x40000, StepState.SENT),
        Step(0, 3, StepKind.ERASE, 0x140000, 0x40000),
    ]
    session = world.records.add_session(draft, steps)
    browser = world.browser("enno")
    page = browser.get(f"/terminals/{SERIAL}")
    assert "erase 0x100000, 262,144 bytes: done" in words(page)
    assert re.search(r'class="application writing" title="application, 1024 KiB', page)
    assert re.search(r'class="application due" title="application, 1280 KiB', page)
    topic = f"terminal:{SERIAL}"
    before = world.center.views.fingerprint(topic)
    world.records.save_step(replace(steps[2], session_id=session.id, state=StepState.DONE))
    assert world.center.views.fingerprint(topic) != before
    assert re.search(r'class="application done"', browser.get(f"/terminals/{SERIAL}"))


def test_the_log_shows_what_operators_did_and_what_was_done_to_personal_data(world: World) -> None:
    world.browser("cleo").get(f"/terminals/{SERIAL}")
    page = words(world.browser("aude").get("/log"))
    assert "cleo looked at a subscriber" in page
    assert "registrar subscriber added" in page
    assert PHONE not in page


# Who may do what

ORDERS = {
    f"/terminals/{SERIAL}/calls": {"cleo"},
    "/calls/1/key": {"cleo"},
    "/calls/1/hang-up": {"cleo"},
    f"/terminals/{SERIAL}/messages": {"cleo", "enno"},
    f"/terminals/{SERIAL}/updates": {"enno"},
    "/updates/1/cancel": {"enno"},
}


@pytest.mark.parametrize("name", ["cleo", "enno", "aude"])
@pytest.mark.parametrize("path", ORDERS)
def test_each_role_may_do_its_own_and_nothing_else(world: World, path: str, name: str) -> None:
    update = world.core.start_update(SERIAL, "1.1.0", 0.0)
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
