/* Bringing the NOR to an image. */
#pragma once

#include "agent/agent.h"

_Noreturn void rewrite(const struct rewrite_job *job);
