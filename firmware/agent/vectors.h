/* Exception vectors in SRAM: while a chip does not show its array, those in the NOR must not be
 * fetched. */
#pragma once

/* Makes the agent's own vectors count; they say so and reset the board
 * as soon as the chips allow it. */
void vectors_enter(void);

/* Makes the caller's count again. */
void vectors_leave(void);
