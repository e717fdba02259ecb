"""Parts of Unbrick that need packages which not everybody has installed (``pyproject.toml``)."""

from __future__ import annotations

from unbrick.errors import SetupError

EXTRAS = {
    "system": (
        *("aiocoap", "alembic", "argon2", "httpx", "imgtool", "itsdangerous", "jinja2"),
        *("msgspec", "numpy", "prometheus_client", "python_multipart", "sqlalchemy", "starlette"),
        *("uvicorn", "yaml", "ziglang"),
    ),
    "robot": ("robot",),
    "postgresql": ("psycopg",),
    "labgrid": ("labgrid",),
    "svd": ("cmsis_svd",),
    "dask": ("distributed",),
}
"""What each extra brings, by the names under which it is imported."""


THE_TERMINAL = "system"
"""The extra that the reference terminal needs."""


class MissingExtraError(SetupError):
    """A package is not installed that comes with an extra of Unbrick."""

    of_the_terminal = False
    """Whether it is one for the reference terminal."""


def missing_extra(error: ModuleNotFoundError) -> MissingExtraError | None:
    """What to tell a person when an import failed; None: it is not for want of an extra."""
    package = (error.name or "").partition(".")[0]
    for extra, packages in EXTRAS.items():
        if package in packages:
            missing = MissingExtraError(
                f"this needs the package {package}, which is not installed",
                hint=f"run: pip install 'unbrick[{extra}]'",
            )
            missing.of_the_terminal = extra == THE_TERMINAL
            return missing
    return None
