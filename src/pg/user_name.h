/* Which names users and their schemas may have. */
#pragma once

#include "base/str.h"

/* Refuse what PostgreSQL cannot hold (empty, over 63 bytes), what garbles lists and logs (control
 * characters, broken UTF-8), and names that are not the user's to take (pg_..., pgduet_...,
 * public, none, the superuser, which may be NULL). Everything else works, quoted. ERR_INVALID. */
MUST_CHECK bool user_check_name(const char *name, const char *superuser, struct err *err);
MUST_CHECK bool user_check_schema(const char *name, struct err *err);
