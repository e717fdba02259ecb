/* The commands that can be typed on the console. */
#pragma once

/* Runs one line; it is taken apart. While a call is on, keys belong to the call. */
void shell_run(char *line);
