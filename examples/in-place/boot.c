/* Applies what is staged, and starts the application. */
#include "layout.h"
#include "update.h"

int main(void) {
    uart_start();
    if (!update_apply()) {
        print("boot: the flash does not take the application\r\n");
        for (;;) {
            uart_get(); /* the log is still there, for the next start */
        }
    }
    start_program(APP);
    return 0;
}
