/* The official PostgreSQL image's variables, for a container on its own. */
#include "conf/contract_reader.h"

static bool official_user(struct reader *r, const struct var *user, const struct var *password,
                          const struct var *admin, struct err *err)
{
    if (!reader_check_user(user, err) || !reader_put(r, "cluster", "user", user, err))
        return false;
    reader_set(r, "cluster", "user_rights", "superuser");
    return reader_lone_password(r, "POSTGRES_ADMIN_PASSWORD", admin, err) &&
           reader_lone_password(r, "POSTGRES_PASSWORD", password, err);
}

static bool official_users(struct reader *r, bool trusted, struct err *err)
{
    struct var user, database, password, admin, replication;
    bool superuser, missing;

    if (!reader_get(r, "POSTGRES_USER", &user, err) ||
        !reader_get(r, "POSTGRES_DB", &database, err) ||
        !reader_get(r, "POSTGRES_PASSWORD", &password, err) ||
        !reader_get(r, "POSTGRES_ADMIN_PASSWORD", &admin, err) ||
        !reader_get(r, "POSTGRES_REPLICATION_PASSWORD", &replication, err))
        return false;
    superuser = reader_is_superuser(&user);
    missing = superuser ? admin.value == NULL &&
                              reader_password_missing(r, "POSTGRES_ADMIN_PASSWORD", &password)
                        : reader_password_missing(r, "POSTGRES_PASSWORD", &password);
    if (missing && !trusted)
        return reader_refuse_missing(&password, err);
    if (database.value == NULL)
        database.value = superuser ? CONTRACT_SUPERUSER : user.value;
    if (!reader_put(r, "cluster", "database", &database, err) ||
        !reader_lone_password(r, "POSTGRES_REPLICATION_PASSWORD", &replication, err))
        return false;
    return superuser ? reader_lone_password(r, "POSTGRES_ADMIN_PASSWORD",
                                            reader_one_of(r, &password, &admin), err)
                     : official_user(r, &user, &password, &admin, err);
}

bool contract_read_official(struct reader *r, struct err *err)
{
    struct var data_dir = {"PGDATA", reader_look_pgdata(r)};
    struct var method, args, wal_dir;
    bool trusted;

    if (data_dir.value != NULL && !reader_take_data_dir(r, &data_dir, err))
        return false;
    if (!reader_lone_name(r, CONTRACT_SUPERUSER, err) ||
        !reader_get(r, "POSTGRES_HOST_AUTH_METHOD", &method, err) ||
        !reader_get(r, "POSTGRES_INITDB_ARGS", &args, err) ||
        !reader_get(r, "POSTGRES_INITDB_WALDIR", &wal_dir, err))
        return false;
    reader_set(r, "postgres", "listen", "*");
    trusted = method.value != NULL && strcmp(method.value, "trust") == 0;
    if (trusted)
        reader_trust(r, &method);
    else if (method.value != NULL)
        r->method = method.value;
    return reader_put_initdb_args(r, &args, &wal_dir, err) && official_users(r, trusted, err);
}
