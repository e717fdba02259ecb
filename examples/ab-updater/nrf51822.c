/* nRF51822: the registers that are used here are those of the nRF52840. Source: the nRF51 series
 * reference manual, v3.0, chapters 6 and 29. */
#include "nrf52840.c"
