/* Records as JSON: one pack and one unpack per record, with strict types. Numbers that may not fit
 * a signed 64-bit JSON integer (system identifier, inode) are decimal strings. */
#include "store/records.h"

#include <assert.h>
#include <jansson.h>

#define APPEND_TRIES 1000

static const char *const leader_state_names[] = {
    [LEADER_BOOTSTRAP] = "bootstrap",
    [LEADER_SERVING] = "serving",
    [LEADER_RELEASED] = "released",
};
static_assert(COUNT_OF(leader_state_names) == LEADER_RELEASED + 1, "a name for each state");

static const char *const op_phase_names[] = {
    [OP_RUNNING] = "running",
    [OP_DONE] = "done",
    [OP_FAILED] = "failed",
};
static_assert(COUNT_OF(op_phase_names) == OP_FAILED + 1, "a name for each phase");

/* What is being read: named in every error. */
struct source {
    struct arena *arena;
    const char *what;
    int64_t rev;
    json_t *root;
};

static void source_release(struct source *source)
{
    json_decref(source->root);
}

#define AUTO_SOURCE __attribute__((cleanup(source_release))) struct source

const char *leader_state_name(enum leader_state state)
{
    return leader_state_names[state];
}

const char *op_phase_name(enum op_phase phase)
{
    return op_phase_names[phase];
}

static bool find_name(const char *const *names, size_t n, const char *name, unsigned *ret)
{
    for (size_t i = 0; i < n; i++) {
        if (str_equal(names[i], name)) {
            *ret = (unsigned)i;
            return true;
        }
    }
    return false;
}

static bool malformed(const struct source *source, const char *why, struct err *err)
{
    if (source->rev == 0)
        return err_set(err, ERR_INVALID, "%s: %s", source->what, why);
    return err_set(err, ERR_INVALID, "%s, revision %lld: %s", source->what, (long long)source->rev,
                   why);
}

static bool source_load(struct source *source, const char *text, struct err *err)
{
    json_error_t error;

    source->root = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    return source->root != NULL || malformed(source, error.text, err);
}

/* rev 0 and no root when the key does not exist. */
static bool source_get(struct source *source, struct store *store, const char *key, struct err *err)
{
    struct store_value value;

    if (!store_get(store, source->arena, key, &value, err))
        return false;
    source->what = str_fmt(source->arena, "key '%s'", key);
    source->rev = value.rev;
    return value.rev == 0 || source_load(source, value.text, err);
}

static bool unpack(const struct source *source, json_t *json, struct err *err, const char *format,
                   ...)
{
    json_error_t error;
    va_list args;
    int result;

    va_start(args, format);
    result = json_vunpack_ex(json, &error, 0, format, args);
    va_end(args);
    return result == 0 || malformed(source, error.text, err);
}

static bool in_range(const struct source *source, const char *field, json_int_t value,
                     json_int_t max, struct err *err)
{
    if (value >= 0 && value <= max)
        return true;
    return malformed(
        source, str_fmt(source->arena, "%s %lld is out of range", field, (long long)value), err);
}

static bool parse_u64(const struct source *source, const char *field, const char *text,
                      uint64_t *ret, struct err *err)
{
    size_t len = strlen(text);
    uint64_t value = 0;

    if (len == 0 || strspn(text, "0123456789") != len)
        return malformed(source, str_fmt(source->arena, "%s '%s' is not a number", field, text),
                         err);
    for (const char *digit = text; *digit != '\0'; digit++) {
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*digit - '0'), &value))
            return malformed(source, str_fmt(source->arena, "%s %s is out of range", field, text),
                             err);
    }
    *ret = value;
    return true;
}

static bool parse_name(const struct source *source, const char *field, const char *const *names,
                       size_t n, const char *name, unsigned *ret, struct err *err)
{
    return find_name(names, n, name, ret) ||
           malformed(source, str_fmt(source->arena, "unknown %s '%s'", field, name), err);
}

static bool array_fits(const struct source *source, const char *field, json_t *array,
                       struct err *err)
{
    if (!json_is_array(array))
        return malformed(source, str_fmt(source->arena, "%s is not a list", field), err);
    if (json_array_size(array) <= NODES_MAX)
        return true;
    return malformed(source,
                     str_fmt(source->arena, "%s has more than %d entries", field, NODES_MAX), err);
}

/* A message of another program may be in any encoding; it must not keep a record from being
 * written, so bytes that are not UTF-8 become question marks. */
static json_t *text_json(const char *text)
{
    json_t *json = json_string(text == NULL ? "" : text);
    AUTO_ARENA arena = NULL;
    char *copy;

    if (json != NULL)
        return json;
    arena = arena_new();
    copy = str_dup(arena, text);
    for (char *c = copy; *c != '\0'; c++) {
        if ((unsigned char)*c >= 0x80)
            *c = '?';
    }
    return json_string(copy);
}

static json_t *u64_json(uint64_t value)
{
    char text[24];

    snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
    return json_string(text);
}

/* As the store keeps it: one line, so that `cat` shows it. Takes over `json`. */
static const char *dump(struct arena *arena, json_t *json)
{
    AUTO_FREE char *text = NULL;

    if (json != NULL)
        text = json_dumps(json, JSON_COMPACT);
    json_decref(json);
    if (text == NULL) {
        /* Every value is valid, so only memory can be short. */
        fputs("pgduet: out of memory\n", stderr);
        abort();
    }
    return str_fmt(arena, "%s\n", text);
}

/* Takes over `json`. */
static bool put_json(struct store *store, const char *key, json_t *json, int64_t *rev,
                     struct err *err)
{
    AUTO_ARENA arena = arena_new();

    return store_put(store, key, *rev, dump(arena, json), rev, err);
}

static json_t *lock_json(const struct lock_id *id)
{
    return json_pack("{s:o, s:o}", "inode", u64_json(id->inode), "nonce", text_json(id->nonce));
}

static bool parse_lock(const struct source *source, json_t *json, struct lock_id *ret,
                       struct err *err)
{
    struct lock_id id = {0};
    const char *inode;
    const char *nonce;

    if (!unpack(source, json, err, "{s:s, s:s}", "inode", &inode, "nonce", &nonce) ||
        !parse_u64(source, "inode", inode, &id.inode, err))
        return false;
    if (strlen(nonce) >= sizeof(id.nonce))
        return malformed(source, "nonce is too long", err);
    memcpy(id.nonce, nonce, strlen(nonce));
    *ret = id;
    return true;
}

static bool parse_cluster_node(const struct source *source, json_t *json, struct cluster_node *ret,
                               struct err *err)
{
    const char *name;
    json_t *guard;
    json_t *postgres;

    if (!unpack(source, json, err, "{s:s, s:o, s:o}", "name", &name, "guard_lock", &guard,
                "postgres_lock", &postgres))
        return false;
    ret->name = str_dup(source->arena, name);
    return parse_lock(source, guard, &ret->guard_lock, err) &&
           parse_lock(source, postgres, &ret->postgres_lock, err);
}

static bool parse_cluster(const struct source *source, struct cluster_record *ret, struct err *err)
{
    struct cluster_record record = {.rev = source->rev};
    const char *name;
    const char *created;
    const char *nonce;
    const char *system_id;
    json_int_t pg_major;
    json_t *nodes;

    if (!unpack(source, source->root, err, "{s:s, s:s, s:s, s:s, s:I, s:o}", "name", &name,
                "created", &created, "nonce", &nonce, "system_id", &system_id, "pg_major",
                &pg_major, "nodes", &nodes) ||
        !parse_u64(source, "system_id", system_id, &record.system_id, err) ||
        !in_range(source, "pg_major", pg_major, 1000, err) ||
        !array_fits(source, "nodes", nodes, err))
        return false;
    record.name = str_dup(source->arena, name);
    record.created = str_dup(source->arena, created);
    record.nonce = str_dup(source->arena, nonce);
    record.pg_major = (int)pg_major;
    record.n_nodes = json_array_size(nodes);
    for (size_t i = 0; i < record.n_nodes; i++) {
        if (!parse_cluster_node(source, json_array_get(nodes, i), &record.nodes[i], err))
            return false;
    }
    *ret = record;
    return true;
}

bool cluster_get(struct store *store, struct arena *arena, struct cluster_record *ret,
                 struct err *err)
{
    AUTO_SOURCE source = {.arena = arena};

    if (!source_get(&source, store, "cluster", err))
        return false;
    if (source.root != NULL)
        return parse_cluster(&source, ret, err);
    *ret = (struct cluster_record){0};
    return true;
}

bool cluster_put(struct store *store, struct cluster_record *record, struct err *err)
{
    json_t *nodes = json_array();

    for (size_t i = 0; i < record->n_nodes; i++) {
        const struct cluster_node *node = &record->nodes[i];

        json_array_append_new(nodes, json_pack("{s:o, s:o, s:o}", "name", text_json(node->name),
                                               "guard_lock", lock_json(&node->guard_lock),
                                               "postgres_lock", lock_json(&node->postgres_lock)));
    }
    return put_json(store, "cluster",
                    json_pack("{s:o, s:o, s:o, s:o, s:i, s:o}", "name", text_json(record->name),
                              "created", text_json(record->created), "nonce",
                              text_json(record->nonce), "system_id", u64_json(record->system_id),
                              "pg_major", record->pg_major, "nodes", nodes),
                    &record->rev, err);
}

const struct cluster_node *cluster_find_node(const struct cluster_record *record, const char *name)
{
    for (size_t i = 0; i < record->n_nodes; i++) {
        if (str_equal(record->nodes[i].name, name))
            return &record->nodes[i];
    }
    return NULL;
}

static bool parse_leader(const struct source *source, struct leader_record *ret, struct err *err)
{
    const char *holder;
    const char *incarnation;
    const char *state_name;
    const char *reason;
    const char *since;
    json_int_t epoch;
    json_int_t timeline;
    unsigned state = 0;

    if (!unpack(source, source->root, err, "{s:I, s:s, s:s, s:s, s:I, s:s, s:s}", "epoch", &epoch,
                "holder", &holder, "incarnation", &incarnation, "state", &state_name, "timeline",
                &timeline, "reason", &reason, "since", &since) ||
        !in_range(source, "epoch", epoch, INT64_MAX, err) ||
        !in_range(source, "timeline", timeline, UINT32_MAX, err) ||
        !parse_name(source, "state", leader_state_names, COUNT_OF(leader_state_names), state_name,
                    &state, err))
        return false;
    *ret = (struct leader_record){
        .rev = source->rev,
        .epoch = epoch,
        .holder = str_dup(source->arena, holder),
        .incarnation = str_dup(source->arena, incarnation),
        .state = (enum leader_state)state,
        .timeline = (uint32_t)timeline,
        .reason = str_dup(source->arena, reason),
        .since = str_dup(source->arena, since),
    };
    return true;
}

bool leader_get(struct store *store, struct arena *arena, struct leader_record *ret,
                struct err *err)
{
    AUTO_SOURCE source = {.arena = arena};

    if (!source_get(&source, store, "leader", err))
        return false;
    if (source.root != NULL)
        return parse_leader(&source, ret, err);
    *ret = (struct leader_record){0};
    return true;
}

bool leader_put(struct store *store, struct leader_record *record, struct err *err)
{
    return put_json(store, "leader",
                    json_pack("{s:I, s:o, s:o, s:s, s:I, s:o, s:o}", "epoch",
                              (json_int_t)record->epoch, "holder", text_json(record->holder),
                              "incarnation", text_json(record->incarnation), "state",
                              leader_state_name(record->state), "timeline",
                              (json_int_t)record->timeline, "reason", text_json(record->reason),
                              "since", text_json(record->since)),
                    &record->rev, err);
}

static bool parse_member(const struct source *source, struct member_record *ret, struct err *err)
{
    const char *name;
    const char *host;
    const char *wish;
    const char *since;
    json_int_t port;

    if (!unpack(source, source->root, err, "{s:s, s:s, s:I, s:s, s:s}", "name", &name, "host",
                &host, "port", &port, "wish", &wish, "since", &since) ||
        !in_range(source, "port", port, UINT16_MAX, err))
        return false;
    *ret = (struct member_record){
        .rev = source->rev,
        .name = str_dup(source->arena, name),
        .host = str_dup(source->arena, host),
        .port = (int)port,
        .wish = str_dup(source->arena, wish),
        .since = str_dup(source->arena, since),
    };
    return true;
}

bool member_get(struct store *store, struct arena *arena, const char *node,
                struct member_record *ret, struct err *err)
{
    AUTO_SOURCE source = {.arena = arena};

    if (!source_get(&source, store, str_fmt(arena, "members/%s", node), err))
        return false;
    if (source.root != NULL)
        return parse_member(&source, ret, err);
    *ret = (struct member_record){0};
    return true;
}

bool member_put(struct store *store, struct member_record *record, struct err *err)
{
    AUTO_ARENA arena = arena_new();

    return put_json(store, str_fmt(arena, "members/%s", record->name),
                    json_pack("{s:o, s:o, s:i, s:o, s:o}", "name", text_json(record->name), "host",
                              text_json(record->host), "port", record->port, "wish",
                              text_json(record->wish), "since", text_json(record->since)),
                    &record->rev, err);
}

bool config_get(struct store *store, struct arena *arena, struct config_record *ret,
                struct err *err)
{
    AUTO_SOURCE source = {.arena = arena};
    int paused = 0;

    if (!source_get(&source, store, "config", err))
        return false;
    if (source.root != NULL && !unpack(&source, source.root, err, "{s:b}", "paused", &paused))
        return false;
    *ret = (struct config_record){.rev = source.rev, .paused = paused != 0};
    return true;
}

bool config_put(struct store *store, struct config_record *record, struct err *err)
{
    return put_json(store, "config", json_pack("{s:b}", "paused", (int)record->paused),
                    &record->rev, err);
}

static bool parse_op_node(const struct source *source, json_t *json, struct op_node *ret,
                          struct err *err)
{
    const char *name;
    const char *phase_name;
    const char *message;
    unsigned phase = 0;

    if (!unpack(source, json, err, "{s:s, s:s, s:s}", "name", &name, "phase", &phase_name,
                "message", &message) ||
        !parse_name(source, "phase", op_phase_names, COUNT_OF(op_phase_names), phase_name, &phase,
                    err))
        return false;
    *ret = (struct op_node){
        .name = str_dup(source->arena, name),
        .phase = (enum op_phase)phase,
        .message = str_dup(source->arena, message),
    };
    return true;
}

static bool parse_op(const struct source *source, struct op_record *ret, struct err *err)
{
    struct op_record record = {.rev = source->rev};
    const char *id;
    const char *kind;
    const char *actor;
    const char *created;
    const char *phase_name;
    const char *message;
    json_t *nodes;
    json_int_t deadline = 0;
    unsigned phase = 0;
    int one_by_one;

    if (!unpack(source, source->root, err, "{s:s, s:s, s:s, s:s, s?I, s:b, s:s, s:s, s:o}", "id",
                &id, "kind", &kind, "actor", &actor, "created", &created, "deadline", &deadline,
                "one_by_one", &one_by_one, "phase", &phase_name, "message", &message, "nodes",
                &nodes) ||
        !in_range(source, "deadline", deadline, INT64_MAX, err) ||
        !parse_name(source, "phase", op_phase_names, COUNT_OF(op_phase_names), phase_name, &phase,
                    err) ||
        !array_fits(source, "nodes", nodes, err))
        return false;
    record.id = str_dup(source->arena, id);
    record.kind = str_dup(source->arena, kind);
    record.actor = str_dup(source->arena, actor);
    record.created = str_dup(source->arena, created);
    record.deadline = deadline;
    record.one_by_one = one_by_one != 0;
    record.phase = (enum op_phase)phase;
    record.message = str_dup(source->arena, message);
    record.n_nodes = json_array_size(nodes);
    for (size_t i = 0; i < record.n_nodes; i++) {
        if (!parse_op_node(source, json_array_get(nodes, i), &record.nodes[i], err))
            return false;
    }
    *ret = record;
    return true;
}

bool op_get(struct store *store, struct arena *arena, struct op_record *ret, struct err *err)
{
    AUTO_SOURCE source = {.arena = arena};

    if (!source_get(&source, store, "op", err))
        return false;
    if (source.root != NULL)
        return parse_op(&source, ret, err);
    *ret = (struct op_record){0};
    return true;
}

bool op_is_followed(const struct op_record *op, int64_t wall_seconds)
{
    return op->rev != 0 && op->phase == OP_RUNNING && wall_seconds < op->deadline;
}

bool op_put(struct store *store, struct op_record *record, struct err *err)
{
    json_t *nodes = json_array();

    for (size_t i = 0; i < record->n_nodes; i++) {
        const struct op_node *node = &record->nodes[i];

        json_array_append_new(nodes, json_pack("{s:o, s:s, s:o}", "name", text_json(node->name),
                                               "phase", op_phase_name(node->phase), "message",
                                               text_json(node->message)));
    }
    return put_json(store, "op",
                    json_pack("{s:o, s:o, s:o, s:o, s:I, s:b, s:s, s:o, s:o}", "id",
                              text_json(record->id), "kind", text_json(record->kind), "actor",
                              text_json(record->actor), "created", text_json(record->created),
                              "deadline", (json_int_t)record->deadline, "one_by_one",
                              (int)record->one_by_one, "phase", op_phase_name(record->phase),
                              "message", text_json(record->message), "nodes", nodes),
                    &record->rev, err);
}

static bool parse_history(const struct source *source, struct history_record *ret, struct err *err)
{
    const char *when;
    const char *node;
    const char *event;
    const char *reason;
    json_int_t epoch;

    if (!unpack(source, source->root, err, "{s:s, s:s, s:I, s:s, s:s}", "when", &when, "node",
                &node, "epoch", &epoch, "event", &event, "reason", &reason) ||
        !in_range(source, "epoch", epoch, INT64_MAX, err))
        return false;
    *ret = (struct history_record){
        .rev = source->rev,
        .when = str_dup(source->arena, when),
        .node = str_dup(source->arena, node),
        .epoch = epoch,
        .event = str_dup(source->arena, event),
        .reason = str_dup(source->arena, reason),
    };
    return true;
}

bool history_get(struct store *store, struct arena *arena, int64_t rev, struct history_record *ret,
                 struct err *err)
{
    AUTO_SOURCE source = {.arena = arena, .what = "key 'history'", .rev = rev};
    struct store_value value;

    if (!store_get_rev(store, arena, "history", rev, &value, err) ||
        !source_load(&source, value.text, err))
        return false;
    return parse_history(&source, ret, err);
}

bool history_add(struct store *store, const struct history_record *record, struct err *err)
{
    AUTO_ARENA arena = arena_new();
    const char *text =
        dump(arena, json_pack("{s:o, s:o, s:I, s:o, s:o}", "when", text_json(record->when), "node",
                              text_json(record->node), "epoch", (json_int_t)record->epoch, "event",
                              text_json(record->event), "reason", text_json(record->reason)));

    for (int tries = 0; tries < APPEND_TRIES; tries++) {
        struct store_value last;

        if (!store_get(store, arena, "history", &last, err))
            return false;
        if (store_put(store, "history", last.rev, text, NULL, err))
            return true;
        if (err->kind != ERR_CONFLICT)
            return false;
    }
    return err_wrap(err, "append to the history");
}

bool beacon_put(struct store *store, const struct beacon *beacon, struct err *err)
{
    AUTO_ARENA arena = arena_new();
    json_t *json = json_pack(
        "{s:o, s:i, s:i, s:i, s:I, s:o, s:o, s:o, s:o, s:b, s:b, s:o}", "node",
        text_json(beacon->node), "guard_pid", beacon->guard_pid, "agent_pid", beacon->agent_pid,
        "postmaster_pid", beacon->postmaster_pid, "guard_start", (json_int_t)beacon->guard_start,
        "state", text_json(beacon->state), "role", text_json(beacon->role), "reason",
        text_json(beacon->reason), "since", text_json(beacon->since), "daemon", (int)beacon->daemon,
        "ready", (int)beacon->ready, "error", text_json(beacon->error));

    return store_beacon_write(store, beacon->node, dump(arena, json), err);
}

static bool parse_beacon(const struct source *source, struct beacon *ret, struct err *err)
{
    struct beacon beacon = {.present = true};
    json_int_t guard_pid;
    json_int_t agent_pid;
    json_int_t postmaster_pid;
    json_int_t guard_start;
    int daemon;
    int ready;

    if (!unpack(source, source->root, err,
                "{s:s, s:I, s:I, s:I, s:I, s:s, s:s, s:s, s:s, s:b, s:b, s:s}", "node",
                &beacon.node, "guard_pid", &guard_pid, "agent_pid", &agent_pid, "postmaster_pid",
                &postmaster_pid, "guard_start", &guard_start, "state", &beacon.state, "role",
                &beacon.role, "reason", &beacon.reason, "since", &beacon.since, "daemon", &daemon,
                "ready", &ready, "error", &beacon.error) ||
        !in_range(source, "guard_pid", guard_pid, INT32_MAX, err) ||
        !in_range(source, "agent_pid", agent_pid, INT32_MAX, err) ||
        !in_range(source, "postmaster_pid", postmaster_pid, INT32_MAX, err) ||
        !in_range(source, "guard_start", guard_start, INT64_MAX, err))
        return false;
    beacon.node = str_dup(source->arena, beacon.node);
    beacon.guard_pid = (int)guard_pid;
    beacon.agent_pid = (int)agent_pid;
    beacon.postmaster_pid = (int)postmaster_pid;
    beacon.guard_start = (uint64_t)guard_start;
    beacon.state = str_dup(source->arena, beacon.state);
    beacon.role = str_dup(source->arena, beacon.role);
    beacon.reason = str_dup(source->arena, beacon.reason);
    beacon.since = str_dup(source->arena, beacon.since);
    beacon.daemon = daemon != 0;
    beacon.ready = ready != 0;
    beacon.error = str_dup(source->arena, beacon.error);
    *ret = beacon;
    return true;
}

bool beacon_get(struct store *store, struct arena *arena, const char *node, struct beacon *ret,
                struct err *err)
{
    AUTO_SOURCE source = {.arena = arena, .what = str_fmt(arena, "beacon of node '%s'", node)};
    const char *text;

    if (!store_beacon_read(store, arena, node, &text, err))
        return false;
    if (text == NULL) {
        *ret = (struct beacon){.age = -1};
        return true;
    }
    if (!source_load(&source, text, err) || !parse_beacon(&source, ret, err))
        return false;
    ret->age = store_beacon_age(store, node);
    return true;
}
