/* The agent's own connection to its server: never blocks, asks one prepared question. */
#pragma once

#include <libpq-fe.h>

#include "pg/sql.h"

enum health_state { HEALTH_OFF, HEALTH_CONNECTING, HEALTH_PREPARING, HEALTH_IDLE, HEALTH_ASKING };

struct health {
    enum health_state state;
    PGconn *conn;
    short events;  /* to poll the socket for */
    msec deadline; /* of the step under way */
    msec ask_at;   /* next question or next attempt to connect */
    char slots[512];

    /* the last answer */
    bool answered; /* since the connection was made */
    bool in_recovery;
    bool streaming;    /* a replica whose walreceiver streams */
    bool slot_missing; /* a primary without one of its replicas' slots */
    uint32_t timeline;
    char error[256];
};

/* Forget everything: the server ended or is another one. */
void health_reset(struct health *health);

/* Begin to connect when it is off and due. `slots`: names of the replicas' slots, with commas. */
void health_connect(struct health *health, const struct sql_target *target, const char *slots);

/* Go on as far as possible without blocking; call on socket events (`ready`) and on time-outs. True
 * when a new answer arrived. */
bool health_turn(struct health *health, bool ready);

/* -1 when there is nothing to poll. */
int health_fd(const struct health *health);
