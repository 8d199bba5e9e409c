/* Lock files: made once, never unlinked, opened without O_CREAT, checked by inode.
 *
 * A lock file that is deleted while its holder lives, and created anew, would be granted to a
 * second process; hence the identity check after locking (experiments: two primaries). */
#pragma once

#include "base/str.h"

struct lock_id {
    uint64_t inode;
    char nonce[33]; /* 32 hex digits, the file's whole first line */
};

/* Make the file with a random nonce. ERR_CONFLICT when it exists. */
MUST_CHECK bool lock_create(const char *path, struct lock_id *ret_id, struct err *err);

enum lock_mode { LOCK_SHARED, LOCK_EXCLUSIVE };

/* Open, flock without waiting, and check that path and file still are `id`. ERR_CONFLICT: held by
 * somebody. ERR_INVALID: not the file that was made (deleted or replaced), with a hint.
 * ERR_NOT_FOUND: deleted. The lock is gone when the last copy of `*ret_fd` is closed. */
MUST_CHECK bool lock_take(const char *path, const struct lock_id *id, enum lock_mode mode,
                          int *ret_fd, struct err *err);

/* Does anybody hold it exclusively? Reads /proc/locks, takes nothing; falls back to a shared try
 * where that is not readable. ERR_NOT_FOUND, ERR_INVALID as above. */
MUST_CHECK bool lock_is_held(const char *path, const struct lock_id *id, bool *ret_held,
                             struct err *err);
