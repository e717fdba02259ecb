/* Bringing the NOR to an image. */
#pragma once

#include "agent/agent.h"

__attribute__((noreturn)) void rewrite(const struct rewrite_job *job);
