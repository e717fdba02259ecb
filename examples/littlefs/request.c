#include "request.h"

#include "chip.h"

static const char *take_word(char **rest) {
    const char *const word = *rest;
    while (**rest != '\0' && **rest != ' ') {
        (*rest)++;
    }
    if (**rest == ' ') {
        *(*rest)++ = '\0';
    }
    return word;
}

void read_request(struct request *request) {
    unsigned size = 0;
    for (uint8_t byte = uart_get(); byte != '\r'; byte = uart_get()) {
        if (size < MOST_LINE) {
            request->line[size++] = (char)byte;
        }
    }
    request->line[size] = '\0';
    char *rest = request->line;
    request->word = take_word(&rest);
    request->key = take_word(&rest);
    request->value = rest;
}
