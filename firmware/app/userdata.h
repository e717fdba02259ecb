/* Backing up what the user has stored, and taking it back (row B6; docs/protocol.md). It leaves
 * this terminal only sealed with the terminal's own key. */
#pragma once

#include <stdint.h>

#include "lib/coap.h"
#include "lib/result.h"

/* For routes.c: POST /backup and POST /restore. */
void userdata_answer_backup(const struct coap_message *request, struct coap_builder *reply);
void userdata_answer_restore(const struct coap_message *request, struct coap_builder *reply);

/* Whether the backup with this SHA-256, made for this update, holds what the user has stored now;
   then the user's data may be erased from here on. Returns RESULT_SUCCESS, RESULT_USERDATA_CHANGED,
   or why there can be no backup. */
enum result userdata_unchanged(uint32_t update_id, const uint8_t digest[32]);
