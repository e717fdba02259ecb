"""Signing in: sessions, cookies, forged requests, throttling, and the headers of every answer."""

from __future__ import annotations

import pytest
from center_world import PASSWORD, SERIAL, Browser, World

from unbrick.center.center import Center
from unbrick.center.operators.accounts import add_operator
from unbrick.center.operators.records import Deed, Role
from unbrick.center.page.security import (
    COOKIE,
    SIGN_IN_IDLE_S,
    SIGN_IN_LIFETIME_S,
    SIGN_INS,
    SignIns,
    Tokens,
)
from unbrick.center.page.web import MAX_FORM


@pytest.fixture
def world() -> World:
    made = World()
    made.register()
    made.publish()
    return made


def signed_in(browser: Browser) -> bool:
    response = browser.http.get("/", follow_redirects=False)
    assert response.status_code in (200, 303)
    return response.status_code == 200


def test_without_a_session_there_is_the_sign_in_page_alone(world: World) -> None:
    browser = world.browser()
    for path in ("/", f"/terminals/{SERIAL}", "/calls", "/log"):
        response = browser.http.get(path, follow_redirects=False)
        assert (response.status_code, response.headers["location"]) == (303, "/sign-in")
    assert browser.http.get("/live?topic=terminals").status_code == 403
    assert SERIAL not in browser.get("/sign-in")


@pytest.mark.parametrize(
    ("name", "password"),
    [("cleo", "wrong"), ("nobody", PASSWORD), ("", ""), ("cleo", ""), ("cleo", "x" * 4000)],
)
def test_a_wrong_name_or_password_says_the_same(world: World, name: str, password: str) -> None:
    browser = world.browser()
    response = browser.sign_in(name, password)
    assert response.status_code == 401
    assert "Name and password do not fit together." in response.text
    assert not signed_in(browser)
    assert [entry.deed for entry in world.deeds] == [Deed.FAILED]
    assert world.deeds[0].operator == ("cleo" if name == "cleo" else "?")


def test_the_cookie_is_for_this_site_by_https_and_not_for_scripts(world: World) -> None:
    cookie = (
        world.browser()
        .http.post("/sign-in", data={"name": "cleo", "password": PASSWORD}, follow_redirects=False)
        .headers["set-cookie"]
    )
    name, _, rest = cookie.partition("=")
    flags = {part.strip().lower() for part in rest.split(";")[1:]}
    assert name == COOKIE
    assert name.startswith("__Host-")
    assert {"httponly", "secure", "samesite=strict", "path=/"} <= flags


def test_signing_out_ends_the_session_also_for_a_copy_of_the_cookie(world: World) -> None:
    browser = world.browser("cleo")
    thief = Browser(world)
    thief.http.cookies.update(browser.http.cookies)
    assert signed_in(thief)
    browser.post("/sign-out")
    assert not signed_in(browser)
    assert not signed_in(thief)
    assert world.deeds[-1].deed is Deed.SIGNED_OUT


def test_signing_in_makes_a_new_number(world: World) -> None:
    browser = world.browser("cleo")
    before = browser.http.cookies[COOKIE]
    thief = Browser(world)
    thief.http.cookies.set(COOKIE, before)
    browser.sign_in("aude")
    assert browser.http.cookies[COOKIE] != before
    assert "cleo, clerk" in thief.get("/"), "the old session is still the old operator's"


@pytest.mark.parametrize("cookie", ["", "x", "e30=.x.y", "null"])
def test_a_cookie_that_this_center_did_not_sign(world: World, cookie: str) -> None:
    browser = world.browser()
    browser.http.cookies.set(COOKIE, cookie)
    assert not signed_in(browser)
    # Signed by another center, or by this one in an earlier life.
    browser.http.cookies.set(COOKIE, World().browser("cleo").http.cookies[COOKIE])
    assert not signed_in(browser)


def test_a_session_ends_when_nothing_is_done_and_after_a_day_of_work(world: World) -> None:
    browser = world.browser("cleo")
    for _ in range(SIGN_IN_LIFETIME_S // (SIGN_IN_IDLE_S - 1)):
        world.now += SIGN_IN_IDLE_S - 1
        assert signed_in(browser)
    world.now += SIGN_IN_IDLE_S - 1
    assert not signed_in(browser), "its time is over, whatever was done"
    browser.sign_in("cleo")
    world.now += SIGN_IN_IDLE_S - 1
    live = browser.http.get("/", headers={"X-Live": "1"}, follow_redirects=False)
    assert live.status_code == 200
    world.now += 1
    assert not signed_in(browser), "a page that keeps itself up to date is no person"


def test_an_operator_who_is_removed_or_gets_a_new_password_is_out(world: World) -> None:
    browser = world.browser("cleo")
    quick = world.center._passwords
    add_operator(world.accounts, quick, "cleo", Role.CLERK, "another password", world.now)
    assert not signed_in(browser)
    assert browser.sign_in("cleo", "another password").status_code == 200
    world.accounts.remove_operator("cleo")
    assert not signed_in(browser)


def test_a_role_that_is_taken_away_is_gone_at_once(world: World) -> None:
    browser = world.browser("enno")
    operator = world.accounts.operator("enno")
    assert operator
    world.accounts.save_operator(type(operator)("enno", Role.AUDITOR, operator.password, 0.0))
    assert browser.post(f"/terminals/{SERIAL}/updates", version="1.1.0").status_code == 403
    assert world.records.updates() == []


# Requests that a page of somebody else sends


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"origin": "https://["},
        {"origin": "https://testserver.evil.example"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_orders_from_other_sites_are_refused(world: World, headers: dict[str, str]) -> None:
    browser = world.browser("enno")
    data = {"token": browser.token(), "version": "1.1.0"}
    path = f"/terminals/{SERIAL}/updates"
    assert browser.http.post(path, data=data, headers=headers).status_code == 403
    assert browser.http.get("/live?topic=terminals", headers=headers).status_code == 403
    data = {"name": "cleo", "password": PASSWORD}
    assert browser.http.post("/sign-in", data=data, headers=headers).status_code == 403
    assert world.records.updates() == []


def test_a_token_is_of_one_session(world: World) -> None:
    browser, other = world.browser("enno"), world.browser("enno")
    path = f"/terminals/{SERIAL}/updates"
    for token in (other.token(), "", "x", browser.token() + "x"):
        response = browser.http.post(path, data={"token": token, "version": "1.1.0"})
        assert response.status_code == 403
    assert world.records.updates() == []


def test_tokens() -> None:
    tokens = Tokens("key")
    token = tokens.make("number")
    assert tokens.fits(token, "number")
    assert not tokens.fits(token, "other")
    assert not Tokens("other key").fits(token, "number")


def test_sessions_do_not_grow_for_ever() -> None:
    world = World()
    cleo = world.accounts.operator("cleo")
    assert cleo
    sign_ins = SignIns()
    first = sign_ins.begin(cleo, 0.0)
    for _ in range(SIGN_INS):
        last = sign_ins.begin(cleo, 0.0)
    assert sign_ins.find(first, 0.0) is None
    assert sign_ins.find(last, 0.0)


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"a" * (MAX_FORM + 1), "application/x-www-form-urlencoded", 413),
        (b"&".join(b"a=1" for _ in range(100)), "application/x-www-form-urlencoded", 400),
        (b"\xff", "application/x-www-form-urlencoded", 400),
        (b"{}", "application/json", 415),
        (b"{}", "text/plain", 415),
        (b"", "", 415),
    ],
)
def test_bodies_that_are_no_form(world: World, body: bytes, kind: str, status: int) -> None:
    headers = {"content-type": kind}
    for browser, path in ((world.browser(), "/sign-in"), (world.browser("cleo"), "/sign-out")):
        assert browser.http.post(path, content=body, headers=headers).status_code == status


# Guessing


def test_guessing_is_made_slow_and_ends_by_itself(world: World) -> None:
    browser = world.browser()
    for _ in range(5):
        assert browser.sign_in("cleo", "wrong").status_code == 401
    response = browser.sign_in("cleo", PASSWORD)
    assert response.status_code == 429, "not even with the right one"
    assert "Too many attempts; try again in 1 minutes." in response.text
    assert len(world.deeds) == 5, "what was not tried is not in the log"
    world.now += 31
    assert browser.sign_in("cleo", PASSWORD).status_code == 200


def test_guessing_from_many_places_at_one_account_and_from_one_at_many(world: World) -> None:
    center: Center = world.center
    assert center._by_name.wait("cleo", world.now) == 0
    for number in range(20):
        center._by_name.failed("cleo", world.now + number)
    assert world.browser().sign_in("cleo").status_code == 429
    browser = world.browser()
    for number in range(50):
        assert browser.sign_in(f"name{number}", "wrong").status_code == 401
    assert browser.sign_in("aude").status_code == 429


# Every answer


@pytest.mark.parametrize("path", ["/", "/sign-in", "/nothing", "/static/center.css", "/live"])
def test_headers(world: World, path: str) -> None:
    response = world.browser().http.get(path, follow_redirects=False)
    policy = response.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    expected = "no-cache" if path.startswith("/static") else "no-store"
    assert response.headers["cache-control"] == expected


def test_no_page_has_style_or_script_in_it(world: World) -> None:
    browser = world.browser("cleo")
    for path in ("/", f"/terminals/{SERIAL}", "/calls", "/sign-in"):
        page = browser.get(path)
        assert "style=" not in page
        assert "<style" not in page
        assert "onclick" not in page
        assert page.count("<script") == 1
