/* A request: a line of up to three words, of which the last one may have blanks. */
#pragma once

enum { MOST_LINE = 200 }; /* characters; what comes beyond is dropped */

struct request {
    const char *word, *key, *value; /* empty where there is none */
    char line[MOST_LINE + 1];
};

/* Wait for a line, which ends with a carriage return. */
void read_request(struct request *request);
