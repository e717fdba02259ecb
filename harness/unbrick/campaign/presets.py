"""How far a campaign goes, by name."""

from __future__ import annotations

from unbrick.campaign.search import Bounds

PRESETS = {
    "quick": Bounds(depth=1, states=40, deaths=8),
    "full": Bounds(),
    "exhaustive": Bounds(),
}
"""quick: one loss of power, torn operations, at most 40 states of a scenario, for every day; full:
until no state is new; exhaustive: as full, then every state that only counts as known is started,
too (``unbrick.campaign.exhaustive``)."""
