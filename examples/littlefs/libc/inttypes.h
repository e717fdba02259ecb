/* littlefs includes it for formats of messages, which are left out. */
#pragma once

#include <stdint.h>
