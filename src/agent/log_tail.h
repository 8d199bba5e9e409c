/* Follows the server's log files: what is WARNING or worse is repeated on the agent's stderr, the
 * newest of it is remembered for `status`, and old files are removed. */
#pragma once

#include <sys/types.h>

#include "conf/conf.h"

struct log_tail {
    const char *dir;
    const char *log_name;
    const char *node;
    char file[64]; /* being read */
    off_t offset;
    msec second; /* rate limit: lines repeated within this second */
    int repeated;
    int suppressed;
    char last_text[128]; /* the line repeated last, from its severity on */
    msec last_told;
    bool stopping;        /* as we asked: whom it disconnects for that is no problem of its own */
    char last_fatal[256]; /* newest FATAL or PANIC line since log_tail_forget() */
};

/* Start at the end of the newest file. */
void log_tail_start(struct log_tail *tail, const char *dir, const char *log_name, const char *node);

/* A file in the directory changed: read what is new. */
void log_tail_turn(struct log_tail *tail, const char *name);

/* The newest FATAL or PANIC line since log_tail_forget(), "" when there is none. */
const char *log_tail_last_fatal(struct log_tail *tail);

/* Keep our own log, where stderr is a file, from growing without end: above 16 MB
 * its last megabyte is kept as "<file>.1" and it begins anew. */
void log_tail_limit_own(struct arena *arena);

void log_tail_forget(struct log_tail *tail);

/* Remove the server's log files last written more than `days` ago. */
void log_tail_prune(struct arena *arena, const struct log_tail *tail, int days);
