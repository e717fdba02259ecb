"""Operators: what each role may do, their passwords, and how often one may try to sign in.

Passwords are hashed with Argon2id by ``argon2-cffi``, with its recommended parameters (RFC 9106).
"""

from __future__ import annotations

import re
from base64 import b64encode
from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, replace
from enum import Enum

import argon2
from argon2.low_level import ARGON2_VERSION

from unbrick.center.operators.records import Accounts, Deed, LogEntry, Operator, Role
from unbrick.errors import SetupError
from unbrick.server.records.calls import CALLER

MIN_PASSWORD_CHARS, MAX_PASSWORD_CHARS = 12, 256
"""Characters of a password."""

_NAME = re.compile(r"[a-z][a-z0-9._-]{0,31}")


class Permission(Enum):
    """Something that not every operator may do."""

    SEE_SUBSCRIBERS = "see who a terminal belongs to"
    SEE_LOG = "see what operators did"
    CALL = "make calls"
    SEND = "send text messages"
    UPDATE = "start and cancel updates, and rule on rollouts"


_MAY = {
    Role.CLERK: frozenset((Permission.SEE_SUBSCRIBERS, Permission.CALL, Permission.SEND)),
    Role.ENGINEER: frozenset((Permission.SEND, Permission.UPDATE)),
    Role.AUDITOR: frozenset((Permission.SEE_SUBSCRIBERS, Permission.SEE_LOG)),
}


def may(operator: Operator, permission: Permission) -> bool:
    """Whether an operator may do it. Every role may look at terminals, updates and calls."""
    return permission in _MAY[operator.role]


class PasswordError(SetupError):
    """A password or a name that an operator cannot have."""


class Passwords:
    """Hashes passwords and compares them; takes some 50 ms and 64 MiB each time.

    Args:
        hasher: of Argon2id; for tests, a faster one.
    """

    def __init__(self, hasher: argon2.PasswordHasher | None = None) -> None:
        self._hasher = hasher or argon2.PasswordHasher()
        self._nobody = _make_hash_of_nothing(self._hasher)

    def hash(self, password: str) -> str:
        """A new hash.

        Raises:
            PasswordError: it is too short or too long.
        """
        if not MIN_PASSWORD_CHARS <= len(password) <= MAX_PASSWORD_CHARS:
            raise PasswordError(
                f"a password has {MIN_PASSWORD_CHARS} to {MAX_PASSWORD_CHARS} characters",
                hint="three or four words that you make up will do",
            )
        return self._hasher.hash(password)

    def fits(self, operator: Operator | None, password: str) -> bool:
        """Whether it is the operator's; takes as long when there is no such operator."""
        known = operator.password if operator else self._nobody
        try:
            self._hasher.verify(known, password[: MAX_PASSWORD_CHARS + 1])
        except (
            argon2.exceptions.VerificationError,
            argon2.exceptions.InvalidHashError,
            UnicodeError,
        ):
            return False
        return operator is not None

    def renewed(self, operator: Operator, password: str) -> Operator | None:
        """The operator with a fresh hash, if the parameters have changed since it was made."""
        if not self._hasher.check_needs_rehash(operator.password):
            return None
        return replace(operator, password=self._hasher.hash(password))


def _make_hash_of_nothing(hasher: argon2.PasswordHasher) -> str:
    """A hash that no known password has; to compare one with it takes as long as with any other."""
    costs = f"m={hasher.memory_cost},t={hasher.time_cost},p={hasher.parallelism}"
    sizes = hasher.salt_len, hasher.hash_len
    salt, digest = (b64encode(bytes(size)).decode().rstrip("=") for size in sizes)
    return f"$argon2id$v={ARGON2_VERSION}${costs}${salt}${digest}"


def add_operator(
    accounts: Accounts, passwords: Passwords, name: str, role: Role, password: str, now: float
) -> Operator:
    """Make an account, or give an operator another role and password.

    Raises:
        PasswordError: the name or the password will not do.
    """
    if not _NAME.fullmatch(name) or name == CALLER:
        raise PasswordError(
            f"{name!r} cannot be an operator's name",
            hint=f"use up to 32 small letters, digits, dots, hyphens; a letter first, not {CALLER}",
        )
    before = accounts.operator(name)
    operator = Operator(name, role, passwords.hash(password), before.created if before else now)
    accounts.save_operator(operator)
    deed = Deed.CHANGED if before else Deed.ADDED
    accounts.log(LogEntry(0, now, name, deed, "", f"as {role.value}"))
    return operator


@dataclass
class _Failures:
    count: int
    until: float
    last: float


class Throttle:
    """Makes those wait who fail too often.

    After ``limit`` failures each further one doubles the wait, from 30 seconds to 15 minutes. An
    hour without a failure forgives all.
    """

    FIRST_WAIT_S, MAX_WAIT_S, MEMORY_S = 30.0, 900.0, 3600.0
    KEYS = 10_000
    """Kept at most; the oldest are forgotten."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._failures: OrderedDict[Hashable, _Failures] = OrderedDict()

    def wait(self, key: Hashable, now: float) -> float:
        """Seconds until ``key`` may try again; 0 when it may now."""
        found = self._failures.get(key)
        return max(0.0, found.until - now) if found else 0.0

    def failed(self, key: Hashable, now: float) -> None:
        """``key`` has tried and failed."""
        found = self._failures.pop(key, None)
        count = found.count + 1 if found and now - found.last < self.MEMORY_S else 1
        over = count - self._limit
        wait = min(self.MAX_WAIT_S, self.FIRST_WAIT_S * 2 ** min(over, 10)) if over >= 0 else 0.0
        self._failures[key] = _Failures(count, now + wait, now)
        if len(self._failures) > self.KEYS:
            self._failures.popitem(last=False)

    def succeeded(self, key: Hashable) -> None:
        """``key`` has shown who it is."""
        self._failures.pop(key, None)
