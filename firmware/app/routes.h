/* The application's side of the wireless link: what the server may ask for, and who answers. */
#pragma once

/* Begins; the first registration is sent by the first radio_poll. */
void routes_start(void);
