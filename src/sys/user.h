/* Which user we are and become: PostgreSQL refuses to run as root. */
#pragma once

#include <sys/types.h>

#include "base/str.h"

/* Run as root on a directory that belongs to somebody else: become its owner for good (groups,
 * gid, uid; PDEATHSIG and dumpable are left to the caller). Nothing to do otherwise.
 * ERR_STATE when the directory belongs to root, or to another non-root user than the caller. */
MUST_CHECK bool user_become_owner(const char *dir, struct err *err);

/* Look up a user. ERR_NOT_FOUND. */
MUST_CHECK bool user_find(const char *name, uid_t *ret_uid, gid_t *ret_gid, struct err *err);

/* First directory on the way to `path` that uid/gid cannot enter, or NULL if all can be. */
const char *user_cannot_enter(struct arena *arena, const char *path, uid_t uid, gid_t gid);

/* As root: become uid/gid (with the user's groups) for good. */
MUST_CHECK bool user_become(uid_t uid, gid_t gid, struct err *err);
