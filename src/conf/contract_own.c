/* Our own deployments: PGDUET_NODES names the nodes, and each container is one of them. */
#include "conf/contract_reader.h"
#include "conf/settings.h"

static const char *next_word(struct arena *arena, const char **at)
{
    const char *start = *at + strspn(*at, " \t\r\n");
    size_t len = strcspn(start, " \t\r\n");

    *at = start + len;
    return len == 0 ? NULL : str_ndup(arena, start, len);
}

/* NAME or NAME=DIRECTORY/PREFIX of its log files. */
static bool own_node(struct reader *r, const char *word, const char **ret_name, struct err *err)
{
    const char *equals = strchr(word, '=');
    struct var name = {"PGDUET_NODES", word};
    struct var prefix = {"PGDUET_NODES", "postgresql"};
    struct conf_node scratch;
    const char *logs, *slash;

    if (equals != NULL)
        name.value = str_ndup(r->arena, word, (size_t)(equals - word));
    if (!reader_check_node_name(&name, err))
        return false;
    logs = str_fmt(r->arena, "logs/%s", name.value);
    if (equals != NULL) {
        slash = strrchr(equals, '/');
        if (slash == NULL || slash == equals + 1 || slash[1] == '\0')
            return err_set(err, ERR_INVALID,
                           "PGDUET_NODES: '%s' is not NAME=DIRECTORY/PREFIX of its log files",
                           word);
        logs = str_ndup(r->arena, equals + 1, (size_t)(slash - equals) - 1);
        prefix.value = slash + 1;
    }
    if (!settings_store(r->arena, r->dir, settings_find("node", "log_name"), prefix.value, &scratch,
                        err))
        return err_wrap(err, "%s", prefix.name);
    reader_set_node(r, name.value, "port", CONTRACT_PORT);
    reader_set_node(r, name.value, "logs", logs);
    reader_set_node(r, name.value, "log_name", prefix.value);
    *ret_name = name.value;
    return true;
}

struct names {
    const char *name[CONF_NODES_MAX];
    size_t n;
};

static bool own_nodes(struct reader *r, struct names *ret, struct err *err)
{
    const char *list = reader_look(r, "PGDUET_NODES");
    const char *word;

    while ((word = next_word(r->arena, &list)) != NULL) {
        if (ret->n == CONF_NODES_MAX)
            return err_set(err, ERR_INVALID, "PGDUET_NODES has more than %d nodes", CONF_NODES_MAX);
        if (!own_node(r, word, &ret->name[ret->n], err))
            return false;
        for (size_t i = 0; i < ret->n; i++)
            if (strcmp(ret->name[i], ret->name[ret->n]) == 0)
                return err_set(err, ERR_INVALID, "PGDUET_NODES has node %s twice", ret->name[i]);
        ret->n++;
    }
    if (ret->n == 0)
        return err_set(err, ERR_INVALID, "PGDUET_NODES has no node in it");
    return true;
}

static bool own_name(struct reader *r, const struct names *names, const char **ret, struct err *err)
{
    const char *node = reader_look(r, "PGDUET_NODE");

    if (node == NULL && names->n == 1)
        node = names->name[0];
    if (node == NULL) {
        err_set(err, ERR_INVALID, "PGDUET_NODE is not set, and PGDUET_NODES has several nodes");
        return err_hint(err, "it says which of them this container is");
    }
    for (size_t i = 0; i < names->n; i++)
        if (strcmp(names->name[i], node) == 0) {
            *ret = names->name[i];
            return true;
        }
    return err_set(err, ERR_INVALID, "PGDUET_NODE: there is no '%s' in PGDUET_NODES", node);
}

static bool own_user(struct reader *r, struct err *err)
{
    struct var user, database, password;

    if (!reader_get(r, "POSTGRES_USER", &user, err) ||
        !reader_get(r, "POSTGRES_DB", &database, err))
        return false;
    if (database.value != NULL && !reader_put(r, "cluster", "database", &database, err))
        return false;
    if (user.value == NULL) {
        if (!reader_get(r, "POSTGRES_PASSWORD", &password, err))
            return false;
        if (password.value != NULL)
            reader_note(
                r, "POSTGRES_PASSWORD is ignored: it belongs to POSTGRES_USER, which is not set");
        return true;
    }
    if (strcmp(user.value, CONTRACT_SUPERUSER) == 0) {
        err_set(err, ERR_INVALID,
                "POSTGRES_USER: '" CONTRACT_SUPERUSER "' is the superuser's name");
        return err_hint(err, "give the application a user of its own; the superuser's password is "
                             "POSTGRES_ADMIN_PASSWORD");
    }
    if (!reader_check_user(&user, err) || !reader_put(r, "cluster", "user", &user, err))
        return false;
    reader_set(r, "cluster", "user_rights", "owner");
    return reader_own_password(r, "POSTGRES_PASSWORD", "is not set, but POSTGRES_USER is", err);
}

bool contract_read_own(struct reader *r, struct err *err)
{
    struct var data_dir = {"PGDATA", reader_look_pgdata(r)};
    struct names names = {.n = 0};
    const char *self = NULL;

    if (data_dir.value != NULL && !reader_take_data_dir(r, &data_dir, err))
        return false;
    if (!own_nodes(r, &names, err) || !own_name(r, &names, &self, err))
        return false;
    reader_set_common(r, self);
    reader_set(r, "cluster", "store", "store");
    reader_set(r, "postgres", "listen", "*");
    for (size_t i = 0; i < names.n; i++) {
        const char *name = names.name[i];
        const char *sibling = str_fmt(r->arena, "/siblings/%s/data", name);

        reader_set_node(r, name, "host", names.n == 1 ? "127.0.0.1" : name);
        reader_set_node(r, name, "data", name == self ? r->out.data_dir : sibling);
    }
    return reader_own_password(r, "POSTGRES_ADMIN_PASSWORD", "is not set", err) &&
           reader_own_password(r, "POSTGRES_REPLICATION_PASSWORD", "is not set", err) &&
           own_user(r, err);
}
