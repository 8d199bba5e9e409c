/* Files and directories. Every function names the path in its error. */
#pragma once

#include <sys/types.h>

#include "base/str.h"

/* "dir/name" */
const char *path_join(struct arena *arena, const char *dir, const char *name);
/* Without the last component; "." when there is none. */
const char *path_parent(struct arena *arena, const char *path);

bool fs_exists(const char *path);
bool fs_is_dir(const char *path);
/* True for a directory with no entry, and for a path that does not exist. */
bool fs_is_empty_dir(const char *path);

/* The whole file, terminated; `*ret_len` may be NULL. ERR_NOT_FOUND when it does not exist,
 * ERR_INVALID above 16 MiB. */
MUST_CHECK bool fs_read(struct arena *arena, const char *path, char **ret_text, size_t *ret_len,
                        struct err *err);

enum fs_sync { FS_NO_SYNC, FS_SYNC };

/* Replace atomically: temporary file beside it, optional fsync of file and directory, rename.
 * Nobody ever reads half of it. */
MUST_CHECK bool fs_write(const char *path, const char *text, size_t len, mode_t mode,
                         enum fs_sync sync, struct err *err);

/* Make a directory; fine if it exists already. fs_mkdirs makes the parents too. */
MUST_CHECK bool fs_mkdir(const char *path, mode_t mode, struct err *err);
MUST_CHECK bool fs_mkdirs(struct arena *arena, const char *path, mode_t mode, struct err *err);

/* Copy a directory tree: files, directories, symbolic links, with modes; shares blocks where the
 * filesystem can (copy_file_range). `to` must not exist. On failure what was copied stays. */
MUST_CHECK bool fs_copy_tree(const char *from, const char *to, struct err *err);

/* Write every file and directory of the tree to disk (fsync), starting all writes first. */
MUST_CHECK bool fs_sync_tree(const char *path, struct err *err);
MUST_CHECK bool fs_sync_path(const char *path, struct err *err);

/* Remove a tree. Only for what pgduet itself made and has not finished (a clone in progress, a
 * seed): callers check their marker first. Never follows symbolic links. */
MUST_CHECK bool fs_remove_tree(const char *path, struct err *err);

/* Names in a directory without "." and "..", sorted. */
MUST_CHECK bool fs_list(struct arena *arena, const char *path, const char ***ret_names,
                        size_t *ret_n, struct err *err);
