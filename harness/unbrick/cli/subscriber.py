"""Commands for the people who have terminals. They need the database, not a running server."""

from __future__ import annotations

import getpass
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timezone

import click

from unbrick.cli.options import database_option, make_ready
from unbrick.errors import SetupError
from unbrick.server.records.contract import Records
from unbrick.server.records.people import Actor, Subscriber
from unbrick.wire.messages import MAX_SERIAL

_PHONE = re.compile(r"\+[1-9][0-9]{6,14}")
_MAX_NAME = 100

_database_option = database_option("SQLite file, or postgresql://USER@HOST/NAME.")
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON for a script.")


def check_phone(text: str) -> str:
    """A phone number without what people put between its digits.

    Raises:
        SetupError: it is none of E.164.
    """
    phone = re.sub(r"[ ().-]", "", text)
    if not _PHONE.fullmatch(phone):
        raise SetupError(
            f"{text!r} is no phone number", hint="write it with its country: +441632960123"
        )
    return phone


def _checked_name(text: str) -> str:
    if not text.strip() or not text.isprintable() or len(text) > _MAX_NAME:
        raise SetupError(
            "this is no name", hint=f"give 1 to {_MAX_NAME} characters that can be printed"
        )
    return text.strip()


def _checked_serial(text: str) -> str:
    if not text or not text.isprintable() or len(text.encode()) > MAX_SERIAL:
        raise SetupError(
            "this is no serial of a terminal",
            hint="`unbrick terminals` lists the terminals that registered",
        )
    return text


def _actor() -> Actor:
    return Actor(getpass.getuser(), time.time(), "by the command line")


@contextmanager
def _records(database: str) -> Iterator[Records]:
    from unbrick.server.database import SqlRecords  # noqa: PLC0415 - slow to import

    records = SqlRecords(make_ready(database))
    try:
        yield records
    finally:
        records.close()


def _find(records: Records, phone: str) -> Subscriber:
    wanted = check_phone(phone)
    for found in records.subscribers():
        if found.phone == wanted:
            return found
    raise SetupError(
        f"no subscriber has the number {wanted}", hint="`unbrick subscriber list` has them all"
    )


@click.group()
def subscriber() -> None:
    """Keep the people who have terminals. What is done is in the audit."""


@subscriber.command("add")
@click.argument("phone")
@click.argument("name")
@click.option("--terminal", "serials", multiple=True, help="Serial of a terminal of theirs.")
@_database_option
def subscriber_add(phone: str, name: str, serials: tuple[str, ...], database: str) -> None:
    """Add a subscriber with their phone number and name."""
    actor = _actor()
    new = Subscriber(0, check_phone(phone), _checked_name(name), actor.now)
    with _records(database) as records:
        try:
            with records.transaction():
                kept = records.add_subscriber(new, actor)
                for serial in serials:
                    records.assign(_checked_serial(serial), kept.id, actor)
        except KeyError as error:
            raise SetupError(
                f"{new.phone} is another subscriber's",
                hint="`unbrick subscriber assign` gives a terminal to a subscriber",
            ) from error
    click.echo(f"{new.phone} is {new.name}")


@subscriber.command("list")
@_database_option
@_json_option
def subscriber_list(database: str, *, as_json: bool) -> None:
    """List the subscribers and their terminals."""
    with _records(database) as records:
        rows = [
            {"phone": item.phone, "name": item.name, "terminals": records.owned(item.id)}
            for item in records.subscribers()
        ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        click.echo(f"{row['phone']}  {row['name']}  {' '.join(row['terminals'])}".rstrip())
    if not rows:
        click.echo("there are no subscribers")


@subscriber.command("assign", short_help="Give a terminal to a subscriber.")
@click.argument("serial")
@click.argument("phone", required=False)
@_database_option
def subscriber_assign(serial: str, phone: str | None, database: str) -> None:
    """Make the terminal SERIAL the subscriber's with the number PHONE; nobody's without one."""
    with _records(database) as records:
        owner = None if phone is None else _find(records, phone)
        records.assign(_checked_serial(serial), owner.id if owner else None, _actor())
    click.echo(f"{serial} is {owner.name if owner else 'nobody'}'s")


@subscriber.command("remove", short_help="Forget a subscriber.")
@click.argument("phone")
@_database_option
def subscriber_remove(phone: str, database: str) -> None:
    """Forget the subscriber with the number PHONE; their terminals are nobody's."""
    with _records(database) as records:
        found = _find(records, phone)
        records.delete_subscriber(found.id, _actor())
    click.echo(f"{found.phone} is forgotten")


@subscriber.command("audit")
@_database_option
@_json_option
def subscriber_audit(database: str, *, as_json: bool) -> None:
    """List everything that was done to personal data."""
    with _records(database) as records:
        entries = records.audit()
    rows = [{**vars(entry), "action": entry.action.value} for entry in entries]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
        return
    for row in rows:
        moment = datetime.fromtimestamp(row["time"], tz=timezone.utc).isoformat(timespec="seconds")
        what = f"{row['action']} {row['subject']} {row['serial']}".rstrip()
        click.echo(f"{moment}  {row['actor']}: {what} ({row['text'] or 'no reason given'})")


COMMANDS: list[click.Command] = [subscriber]
