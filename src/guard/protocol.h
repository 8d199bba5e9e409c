/* The words between guard and agent: one datagram each on a SOCK_SEQPACKET socket, first byte the
 * kind, the rest text. Included by guard and agent; includes nothing. */
#pragma once

enum {
    GUARD_MESSAGE_MAX = 4096,
    GUARD_LOCK_FD = 9,   /* the postgres lock in the postmaster and all its children */
    GUARD_EXIT_HELD = 3, /* exit code of a guard that found another one alive */
};

/* The guard's command line: positional, because only launch.c writes it. Lock ids are
 * "inode:nonce" as made at init; the stop timeout is in milliseconds. */
enum guard_arg {
    GUARD_NODE = 1,
    GUARD_DIR,
    GUARD_AGENT,
    GUARD_PID_FILE,
    GUARD_LOCK,
    GUARD_LOCK_ID,
    GUARD_POSTGRES_LOCK,
    GUARD_POSTGRES_LOCK_ID,
    GUARD_STOP_TIMEOUT,
    GUARD_ARGS,
};

/* guard to agent */
#define GUARD_HELLO 'H'   /* "PID" of the running postmaster, 0 when there is none */
#define GUARD_STARTED 'U' /* "PID": forked and executed */
#define GUARD_FAILED 'F'  /* "why" it could not be started */
#define GUARD_ENDED                                                                                \
    'X'                /* "STATUS KILLED": ended with this wait status; its KILLED leftovers are   \
                        * killed and reaped, no PostgreSQL process of the node is left */
#define GUARD_STOP 't' /* stop PostgreSQL and end yourself */

/* agent to guard */
#define GUARD_START 'S'  /* argv of the postmaster, each terminated by a zero byte */
#define GUARD_SIGNAL 'T' /* "NUMBER": signal for the postmaster */
#define GUARD_PING 'P'   /* the agent's loop turns */
