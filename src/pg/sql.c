/* Connections and statements with a deadline on both sides: the server's statement_timeout ends a
 * slow statement, and our own poll ends the wait for a server that is frozen or gone. Connection
 * parameters are arrays, never strings, so no value needs quoting. */
#include <errno.h>
#include <poll.h>

#include "pg/sql.h"

#define CONNECT_SECONDS "3"
/* A server that obeys statement_timeout answers within it; this much later it never will. */
#define ANSWER_GRACE ((msec)3000)
#define POLL_CAP ((msec)60000)

void sql_close(PGconn **conn)
{
    PQfinish(*conn);
    *conn = NULL;
}

void sql_clear(PGresult **res)
{
    PQclear(*res);
    *res = NULL;
}

struct conninfo {
    const char *keywords[16];
    const char *values[16];
    size_t n;
    char port[16];
    char options[64];
};

static void conninfo_add(struct conninfo *info, const char *keyword, const char *value)
{
    info->keywords[info->n] = keyword;
    info->values[info->n] = value;
    info->n++;
}

static bool is_local(const char *host)
{
    return host == NULL || host[0] == '\0' || host[0] == '/' || str_equal(host, "localhost") ||
           str_starts(host, "127.") || str_equal(host, "::1");
}

static void conninfo_fill(struct conninfo *info, const struct sql_target *target,
                          msec statement_timeout)
{
    *info = (struct conninfo){0};
    snprintf(info->port, sizeof(info->port), "%d", target->port);
    snprintf(info->options, sizeof(info->options), "-c statement_timeout=%lld",
             (long long)statement_timeout);
    conninfo_add(info, "host", target->host);
    conninfo_add(info, "port", info->port);
    conninfo_add(info, "user", target->user);
    conninfo_add(info, "password", target->password);
    conninfo_add(info, "dbname", target->database);
    conninfo_add(info, "application_name",
                 target->application_name == NULL ? "pgduet" : target->application_name);
    conninfo_add(info, "connect_timeout", CONNECT_SECONDS);
    conninfo_add(info, "client_encoding", "UTF8");
    conninfo_add(info, "options", info->options);
    conninfo_add(info, "target_session_attrs", "any");
    if (is_local(target->host)) {
        /* nothing to protect there, and each handshake costs a round trip */
        conninfo_add(info, "sslmode", "disable");
        conninfo_add(info, "gssencmode", "disable");
    }
    conninfo_add(info, NULL, NULL);
}

/* libpq prints notices to stderr, where only our own sentences belong. */
static void ignore_notice(void *data, const char *message)
{
    (void)data;
    (void)message;
}

static void connect_hint(const char *text, struct err *err)
{
    static const struct {
        const char *part;
        const char *hint;
    } known[] = {
        {"password authentication failed", "the password in .env is not the server's"},
        {"no password supplied", "the password is missing in .env"},
        {"starting up", "try again in a moment"},
        {"shutting down", "start it again with `pgduet up`"},
        {"recovery mode", "the server restarts after a crash: try again in a moment"},
        {"too many clients", "close some connections, or raise max_connections"},
        {"remaining connection slots", "close some connections, or raise max_connections"},
        {"no pg_hba.conf entry", "add a rule for this client to config/pg_hba.conf"},
        {"Connection refused", "the server does not run: see `pgduet status`"},
        {"No such file or directory", "the server does not run: see `pgduet status`"},
        {"timeout expired", "the server does not answer: see `pgduet status`"},
    };

    for (size_t i = 0; i < COUNT_OF(known); i++) {
        if (strstr(text, known[i].part) != NULL) {
            err_hint(err, "%s", known[i].hint);
            return;
        }
    }
}

static bool set_connect_error(const PGconn *conn, struct err *err)
{
    const char *text = conn == NULL ? "out of memory" : PQerrorMessage(conn);

    err_set(err, ERR_SQL, "%.*s", (int)strcspn(text, "\r\n"), text);
    connect_hint(text, err);
    return false;
}

bool sql_connect(const struct sql_target *target, msec statement_timeout, PGconn **ret,
                 struct err *err)
{
    struct conninfo info;
    PGconn *conn;

    conninfo_fill(&info, target, statement_timeout);
    conn = PQconnectdbParams(info.keywords, info.values, 0);
    if (PQstatus(conn) != CONNECTION_OK) {
        set_connect_error(conn, err);
        PQfinish(conn);
        return false;
    }
    PQsetNoticeProcessor(conn, ignore_notice, NULL);
    *ret = conn;
    return true;
}

struct attempt {
    PGconn *conn;
    PostgresPollingStatusType wants; /* PGRES_POLLING_OK and _FAILED: finished */
};

static bool attempt_pending(const struct attempt *attempt)
{
    return attempt->wants == PGRES_POLLING_READING || attempt->wants == PGRES_POLLING_WRITING;
}

static void attempt_start(struct attempt *attempt, const struct sql_target *target, msec timeout)
{
    struct conninfo info;

    conninfo_fill(&info, target, timeout);
    attempt->conn = PQconnectStartParams(info.keywords, info.values, 0);
    attempt->wants =
        PQstatus(attempt->conn) == CONNECTION_BAD ? PGRES_POLLING_FAILED : PGRES_POLLING_WRITING;
}

/* One round: wait until any pending attempt can go on, then let those go on. False: no time left,
 * or nothing is pending. */
static bool attempts_advance(struct attempt *attempts, struct pollfd *fds, size_t n, msec deadline)
{
    bool pending = false;
    int ready;

    for (size_t i = 0; i < n; i++) {
        bool waits = attempt_pending(&attempts[i]);

        fds[i].fd = waits ? PQsocket(attempts[i].conn) : -1;
        fds[i].events = attempts[i].wants == PGRES_POLLING_READING ? POLLIN : POLLOUT;
        fds[i].revents = 0;
        pending = pending || waits;
    }
    if (!pending)
        return false;
    ready = poll(fds, n, clock_left(deadline, POLL_CAP));
    for (size_t i = 0; i < n && ready > 0; i++) {
        if (fds[i].revents != 0)
            attempts[i].wants = PQconnectPoll(attempts[i].conn);
    }
    return clock_left(deadline, POLL_CAP) > 0 && (ready >= 0 || errno == EINTR);
}

static PGconn *attempt_finish(struct attempt *attempt, msec timeout, struct err *err)
{
    if (attempt->wants == PGRES_POLLING_OK) {
        PQsetNoticeProcessor(attempt->conn, ignore_notice, NULL);
        return attempt->conn;
    }
    if (attempt->wants == PGRES_POLLING_FAILED) {
        set_connect_error(attempt->conn, err);
    } else {
        err_set(err, ERR_TIMEOUT, "no answer from the server at %s, port %s, within %lld ms",
                PQhost(attempt->conn), PQport(attempt->conn), (long long)timeout);
        connect_hint("timeout expired", err);
    }
    PQfinish(attempt->conn);
    return NULL;
}

void sql_connect_many(const struct sql_target *targets, size_t n, msec timeout, PGconn **ret,
                      struct err *errs)
{
    AUTO_ARENA arena = arena_new();
    struct attempt *attempts = ARENA_ARRAY(arena, struct attempt, n);
    struct pollfd *fds = ARENA_ARRAY(arena, struct pollfd, n);
    msec deadline = clock_now() + timeout;

    for (size_t i = 0; i < n; i++)
        attempt_start(&attempts[i], &targets[i], timeout);
    while (attempts_advance(attempts, fds, n, deadline))
        ;
    for (size_t i = 0; i < n; i++)
        ret[i] = attempt_finish(&attempts[i], timeout, &errs[i]);
}

/* What code can branch on, and what people can do; everything else is ERR_SQL. */
static const struct {
    const char *sqlstate;
    enum err_kind kind;
    const char *hint;
} known_states[] = {
    {"23505", ERR_CONFLICT, NULL}, /* unique_violation: lost a race to create */
    {"25006", ERR_STATE, "this server is a replica: only the primary takes changes"},
    {"42710", ERR_CONFLICT, NULL}, /* duplicate_object */
    {"42P06", ERR_CONFLICT, NULL}, /* duplicate_schema */
    {"53100", ERR_SQL, "the server's disk is full"},
    {"55P03", ERR_TIMEOUT, "another session holds a lock"},
    {"57014", ERR_TIMEOUT, "the statement took too long, or waited for a lock"},
    {"57P01", ERR_STATE, "the server shuts down"},
};

static bool set_result_error(const PGresult *res, PGconn *conn, struct err *err)
{
    const char *state = PQresultErrorField(res, PG_DIAG_SQLSTATE);
    const char *text = PQresultErrorField(res, PG_DIAG_MESSAGE_PRIMARY);
    const char *hint = PQresultErrorField(res, PG_DIAG_MESSAGE_HINT);
    enum err_kind kind = ERR_SQL;

    for (size_t i = 0; i < COUNT_OF(known_states); i++) {
        if (!str_equal(state, known_states[i].sqlstate))
            continue;
        kind = known_states[i].kind;
        hint = hint == NULL ? known_states[i].hint : hint;
    }
    if (text == NULL)
        text = PQerrorMessage(conn);
    err_set(err, kind, "%.*s", (int)strcspn(text, "\r\n"), text);
    if (hint != NULL)
        err_hint(err, "%.*s", (int)strcspn(hint, "\r\n"), hint);
    return false;
}

static bool set_conn_error(PGconn *conn, struct err *err)
{
    const char *text = PQerrorMessage(conn);

    return err_set(err, ERR_SQL, "%.*s", (int)strcspn(text, "\r\n"), text);
}

/* When to stop waiting for an answer; 0: never. The timeout is the connection's own. */
static msec answer_deadline(const PGconn *conn)
{
    static const char option[] = "-c statement_timeout=";
    const char *options = PQoptions(conn);
    const char *found = options == NULL ? NULL : strstr(options, option);
    long long timeout = found == NULL ? 0 : strtoll(found + sizeof(option) - 1, NULL, 10);

    return timeout <= 0 ? 0 : clock_now() + timeout + ANSWER_GRACE;
}

static bool wait_answer(PGconn *conn, msec deadline, struct err *err)
{
    while (PQisBusy(conn)) {
        struct pollfd fd = {.fd = PQsocket(conn), .events = POLLIN};
        int ready = poll(&fd, 1, deadline == 0 ? -1 : clock_left(deadline, POLL_CAP));

        if (ready < 0 && errno != EINTR)
            return err_set(err, ERR_IO, "wait for the server's answer: %m");
        if (ready <= 0 && deadline != 0 && clock_left(deadline, POLL_CAP) == 0)
            return err_set(err, ERR_TIMEOUT, "the server does not answer any more");
        if (ready > 0 && !PQconsumeInput(conn))
            return set_conn_error(conn, err);
    }
    return true;
}

static bool is_success(const PGresult *res)
{
    return PQresultStatus(res) == PGRES_COMMAND_OK || PQresultStatus(res) == PGRES_TUPLES_OK;
}

/* Read the answer to its end; the first failure counts, else the last result. */
static bool read_answer(PGconn *conn, msec deadline, PGresult **ret, struct err *err)
{
    AUTO_PGRESULT result = NULL;

    for (;;) {
        PGresult *next;

        if (!wait_answer(conn, deadline, err))
            return false;
        next = PQgetResult(conn);
        if (next == NULL)
            break;
        if (result != NULL && !is_success(result)) {
            PQclear(next);
            continue;
        }
        PQclear(result);
        result = next;
        if (PQresultStatus(result) == PGRES_COPY_IN || PQresultStatus(result) == PGRES_COPY_OUT ||
            PQresultStatus(result) == PGRES_COPY_BOTH)
            return err_set(err, ERR_SQL, "COPY is not possible here");
    }
    if (result == NULL)
        return set_conn_error(conn, err);
    if (!is_success(result))
        return set_result_error(result, conn, err);
    *ret = result;
    result = NULL;
    return true;
}

bool sql_exec(PGconn *conn, const char *statement, int n_params, const char *const *params,
              PGresult **ret_res, struct err *err)
{
    AUTO_PGRESULT result = NULL;
    int sent;

    if (n_params == 0)
        sent = PQsendQuery(conn, statement);
    else
        sent = PQsendQueryParams(conn, statement, n_params, NULL, params, NULL, NULL, 0);
    if (!sent)
        return set_conn_error(conn, err);
    if (!read_answer(conn, answer_deadline(conn), &result, err))
        return false;
    if (ret_res != NULL) {
        *ret_res = result;
        result = NULL;
    }
    return true;
}

/* libpq refuses text that is not valid in the connection's encoding. An empty identifier makes
 * the statement fail, wherever it stands: nothing wrong can be executed. */
static const char *keep_quoted(struct arena *arena, char *quoted)
{
    const char *copy = quoted == NULL ? "\"\"" : str_dup(arena, quoted);

    PQfreemem(quoted);
    return copy;
}

const char *sql_ident(struct arena *arena, PGconn *conn, const char *name)
{
    return keep_quoted(arena, PQescapeIdentifier(conn, name, strlen(name)));
}

const char *sql_literal(struct arena *arena, PGconn *conn, const char *text)
{
    return keep_quoted(arena, PQescapeLiteral(conn, text, strlen(text)));
}

/* 1 to 8 hexadecimal digits up to `stop`. */
static bool parse_half(const char **text, char stop, uint64_t *ret)
{
    size_t len = strspn(*text, "0123456789abcdefABCDEF");

    if (len < 1 || len > 8 || (*text)[len] != stop)
        return false;
    *ret = strtoull(*text, NULL, 16);
    *text += len + (stop != '\0');
    return true;
}

bool sql_parse_lsn(const char *text, uint64_t *ret, struct err *err)
{
    const char *rest = text;
    uint64_t high;
    uint64_t low;

    if (!parse_half(&rest, '/', &high) || !parse_half(&rest, '\0', &low))
        return err_set(err, ERR_INVALID, "'%.40s' is not a WAL position", text);
    *ret = high << 32 | low;
    return true;
}

const char *sql_format_lsn(struct arena *arena, uint64_t lsn)
{
    return str_fmt(arena, "%X/%X", (unsigned)(lsn >> 32), (unsigned)lsn);
}
