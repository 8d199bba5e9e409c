/* Asynchronous libpq (libpq docs, "Asynchronous Command Processing"). */
#include <poll.h>

#include "agent/health.h"

enum { STEP_TIMEOUT = 5000, RECONNECT_DELAY = 500 };

static const char question[] =
    "SELECT r, CASE WHEN r THEN (SELECT timeline_id FROM pg_control_checkpoint())"
    "  ELSE ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int END,"
    " coalesce((SELECT status FROM pg_stat_wal_receiver), ''),"
    " NOT r AND EXISTS (SELECT FROM unnest($1::name[]) AS slot WHERE slot NOT IN"
    "  (SELECT slot_name FROM pg_get_replication_slots())) "
    "FROM (SELECT pg_is_in_recovery() AS r) s";

void health_reset(struct health *health)
{
    if (health->conn != NULL)
        PQfinish(health->conn);
    *health = (struct health){.state = HEALTH_OFF};
}

static void fail(struct health *health, const char *why)
{
    char error[sizeof(health->error)];

    snprintf(error, sizeof(error), "%.*s", (int)strcspn(why, "\n"), why);
    health_reset(health);
    memcpy(health->error, error, sizeof(error));
    health->ask_at = clock_now() + RECONNECT_DELAY;
}

void health_connect(struct health *health, const struct sql_target *target, const char *slots)
{
    char port[16];
    const char *const keywords[] = {"host",    "port",    "user",       "password",
                                    "dbname",  "sslmode", "gssencmode", "application_name",
                                    "options", NULL};
    const char *const values[] = {target->host,
                                  port,
                                  target->user,
                                  target->password,
                                  target->database,
                                  "disable",
                                  "disable",
                                  target->application_name,
                                  "-c statement_timeout=4000",
                                  NULL};

    if (health->state != HEALTH_OFF || clock_now() < health->ask_at)
        return;
    snprintf(port, sizeof(port), "%d", target->port);
    snprintf(health->slots, sizeof(health->slots), "{%s}", slots);
    health->conn = PQconnectStartParams(keywords, values, 0);
    health->deadline = clock_now() + STEP_TIMEOUT;
    health->state = HEALTH_CONNECTING;
    health->events = POLLOUT;
    if (health->conn == NULL || PQstatus(health->conn) == CONNECTION_BAD)
        fail(health, health->conn == NULL ? "out of memory" : PQerrorMessage(health->conn));
}

static void connecting(struct health *health)
{
    switch (PQconnectPoll(health->conn)) {
    case PGRES_POLLING_READING:
        health->events = POLLIN;
        break;
    case PGRES_POLLING_WRITING:
        health->events = POLLOUT;
        break;
    case PGRES_POLLING_OK:
        health->events = POLLIN;
        health->deadline = clock_now() + STEP_TIMEOUT;
        health->state = HEALTH_PREPARING;
        if (!PQsendPrepare(health->conn, "health", question, 0, NULL))
            fail(health, PQerrorMessage(health->conn));
        break;
    case PGRES_POLLING_FAILED:
    case PGRES_POLLING_ACTIVE:
        fail(health, PQerrorMessage(health->conn));
        break;
    }
}

static void read_answer(struct health *health, const PGresult *res)
{
    health->in_recovery = PQgetvalue(res, 0, 0)[0] == 't';
    health->timeline = (uint32_t)strtoul(PQgetvalue(res, 0, 1), NULL, 10);
    health->streaming = strcmp(PQgetvalue(res, 0, 2), "streaming") == 0;
    health->slot_missing = PQgetvalue(res, 0, 3)[0] == 't';
    health->answered = true;
    health->error[0] = '\0';
}

/* Take the results of the step under way. True when it is complete. */
static bool collect(struct health *health)
{
    PGresult *res;

    if (!PQconsumeInput(health->conn)) {
        fail(health, PQerrorMessage(health->conn));
        return false;
    }
    while (!PQisBusy(health->conn)) {
        ExecStatusType status;

        res = PQgetResult(health->conn);
        if (res == NULL)
            return true;
        status = PQresultStatus(res);
        if (status == PGRES_TUPLES_OK && PQntuples(res) == 1)
            read_answer(health, res);
        else if (status != PGRES_COMMAND_OK)
            snprintf(health->error, sizeof(health->error), "%s", PQresultErrorMessage(res));
        PQclear(res);
    }
    return false;
}

static void ask(struct health *health)
{
    const char *const slots = health->slots;

    health->deadline = clock_now() + STEP_TIMEOUT;
    health->state = HEALTH_ASKING;
    if (!PQsendQueryPrepared(health->conn, "health", 1, &slots, NULL, NULL, 0))
        fail(health, PQerrorMessage(health->conn));
}

bool health_turn(struct health *health, bool ready)
{
    bool fresh = false;

    switch (health->state) {
    case HEALTH_OFF:
        return false;
    case HEALTH_CONNECTING:
        if (ready) /* asked too early, libpq takes a connect(2) in progress for done */
            connecting(health);
        break;
    case HEALTH_PREPARING:
        if (collect(health))
            ask(health);
        break;
    case HEALTH_ASKING:
        if (collect(health)) {
            health->state = HEALTH_IDLE;
            fresh = true;
        }
        break;
    case HEALTH_IDLE:
        /* readable without a question: the server has something to say, mostly goodbye */
        if (!PQconsumeInput(health->conn) || PQstatus(health->conn) == CONNECTION_BAD)
            fail(health, PQerrorMessage(health->conn));
        else if (clock_now() >= health->ask_at)
            ask(health);
        break;
    }
    if (health->state != HEALTH_OFF && health->state != HEALTH_IDLE &&
        clock_now() >= health->deadline)
        fail(health, "the server did not answer in time");
    return fresh;
}

int health_fd(const struct health *health)
{
    return health->conn == NULL ? -1 : PQsocket(health->conn);
}
