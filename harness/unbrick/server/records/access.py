"""Who may use the server's HTTP API: tokens, each with a role, of which only a digest is kept."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from unbrick.server.records.tables import Record, Store


class AccessRole(Enum):
    """What the holder of a token is. Each may do what those before it may."""

    VIEWER = "viewer"
    """Looks at everything."""

    OPERATOR = "operator"
    """Publishes images, updates terminals, sends text messages."""

    CENTER = "center"
    """Takes calls: the customer center's process."""

    def includes(self, other: AccessRole) -> bool:
        """Whether this role may do what the other one may."""
        order = list(AccessRole)
        return order.index(self) >= order.index(other)


@dataclass(frozen=True)
class AccessToken(Record):
    """Lets somebody in. Times are seconds since 1970.

    Attributes:
        name: of the person or machine that holds it.
        role: what they may do.
        digest: SHA-256 of the token, which is as long and as random as a key.
        created: when it was made.
        expires: when it ends; None: it does not.
    """

    KEY = ("name",)
    name: str
    role: AccessRole
    digest: bytes
    created: float
    expires: float | None = None

    def holds(self, now: float) -> bool:
        """Whether it has not ended."""
        return self.expires is None or now < self.expires


class AccessTokens:
    """The tokens that there are.

    Args:
        store: keeps them.
    """

    def __init__(self, store: Store) -> None:
        self._tokens = store.table(AccessToken)

    def find(self, digest: bytes) -> AccessToken | None:
        """The token with this digest, also when it has ended."""
        return next(iter(self._tokens.select(digest=digest)), None)

    def list(self) -> list[AccessToken]:
        """Every token, by name."""
        return sorted(self._tokens.select(), key=lambda token: token.name)

    def save(self, token: AccessToken) -> None:
        """Keep a token, in place of one of the same name."""
        self._tokens.put(token)

    def remove(self, name: str) -> bool:
        """Take a token away, at once; gives whether there was one."""
        return self._tokens.remove(name=name)
