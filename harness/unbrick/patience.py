"""How long one program waits for another on the same bench before it takes it for dead.

Nothing here says how fast anything is: a machine may be busy with ten times what it can do. What a
protocol or a terminal's manual limits stands where that is.
"""

from __future__ import annotations

ANSWER_TIMEOUT_S = 120.0
"""For an answer that takes milliseconds on an idle machine."""

START_TIMEOUT_S = 300.0
"""For a program to start and say that it is ready."""

END_TIMEOUT_S = 60.0
"""For a program to end that was told to; then it is killed."""
