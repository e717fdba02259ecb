/* The cryptography of the link's protection (lib/oscore.h), by libsodium. */
#pragma once

#include "lib/oscore.h"

extern const struct oscore_crypto protect_crypto;

/* Overwrites what must not stay; the compiler does not leave it out. */
void protect_wipe(void *data, size_t size);
