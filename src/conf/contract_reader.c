/* What all vocabularies read with: variables are looked up by name and marked, passwords are
 * judged, and what comes of it is written as lines of pgduet.conf and .env. */
#include "conf/contract_reader.h"

#include <ctype.h>
#include <strings.h>
#include <sys/stat.h>

#include "conf/settings.h"
#include "sys/fs.h"
#include "sys/random.h"

enum {
    GENERATED_PASSWORD_LEN = 32,
    NODE_NAME_MAX = 32,
    IMAGE_UID = 1001 /* of the user postgres */
};

/* ---- output ---- */

void reader_note(struct reader *r, const char *text)
{
    const char **notes = ARENA_ARRAY(r->arena, const char *, r->out.n_notes + 1);

    for (size_t i = 0; i < r->out.n_notes; i++)
        notes[i] = r->out.notes[i];
    notes[r->out.n_notes++] = text;
    r->out.notes = notes;
}

void reader_set(struct reader *r, const char *section, const char *key, const char *value)
{
    r->conf = ini_set(r->arena, r->conf, section, NULL, key, value);
}

void reader_set_node(struct reader *r, const char *node, const char *key, const char *value)
{
    r->conf = ini_set(r->arena, r->conf, "node", node, key, value);
}

/* A value from outside: checked here, where its variable can still be named. */
bool reader_put(struct reader *r, const char *section, const char *key, const struct var *var,
                struct err *err)
{
    struct conf scratch;
    int row = settings_find(section, key);

    if (row >= 0 && !settings_store(r->arena, r->dir, row, var->value, &scratch, err))
        return err_wrap(err, "%s", var->name);
    reader_set(r, section, key, var->value);
    return true;
}

/* As conf/env.c and Docker Compose read it: nothing is special between single quotes. */
void reader_add_env(struct reader *r, const char *name, const char *value)
{
    bool plain = strchr(value, '\'') == NULL;

    str_addf(&r->env, "%s=%s", name, plain ? "'" : "\"");
    for (const char *p = value; *p != '\0'; p++) {
        if (!plain && strchr("\"\\$", *p) != NULL)
            str_add(&r->env, "\\");
        str_add_len(&r->env, p, 1);
    }
    str_add(&r->env, plain ? "'\n" : "\"\n");
}

/* ---- variables ---- */

void reader_collect(struct reader *r)
{
    char **environment = r->in->environment;
    size_t n = 0;

    while (environment[n] != NULL)
        n++;
    r->vars = ARENA_ARRAY(r->arena, struct var, n + 1);
    r->used = ARENA_ARRAY(r->arena, bool, n + 1);
    for (size_t i = 0; i < n; i++) {
        const char *equals = strchr(environment[i], '=');

        if (equals == NULL || equals[1] == '\0')
            continue;
        r->vars[r->n_vars++] = (struct var){
            str_ndup(r->arena, environment[i], (size_t)(equals - environment[i])), equals + 1};
    }
}

/* The value as it stands, NULL when there is none. */
const char *reader_look(struct reader *r, const char *name)
{
    for (size_t i = 0; i < r->n_vars; i++) {
        if (strcmp(r->vars[i].name, name) != 0)
            continue;
        r->used[i] = true;
        return r->vars[i].value;
    }
    return NULL;
}

/* They would end a line of pgduet.conf, .env or a passfile. */
bool reader_check_characters(const struct var *var, struct err *err)
{
    for (const char *p = var->value; *p != '\0'; p++)
        if (iscntrl((unsigned char)*p))
            return err_set(err, ERR_INVALID, "%s has a line break or control character in it",
                           var->name);
    return true;
}

static bool image_user_may_read(const char *path)
{
    struct stat st;

    if (stat(path, &st) != 0)
        return false;
    if (st.st_uid == IMAGE_UID)
        return (st.st_mode & S_IRUSR) != 0;
    return (st.st_mode & (st.st_gid == 0 ? S_IRGRP : S_IROTH)) != 0;
}

static bool hint_to_make_readable(struct err *err)
{
    return err_hint(err, "the server's user must be able to read it: chown %d, or chmod 0444",
                    geteuid() == 0 ? IMAGE_UID : (int)geteuid());
}

static bool read_value_file(struct reader *r, const struct var *file, const char **ret,
                            struct err *err)
{
    char *text;
    size_t len;

    if (!fs_read(r->arena, file->value, &text, &len, err)) {
        bool missing = err->kind == ERR_NOT_FOUND;

        err->kind = err->kind == ERR_INVALID ? ERR_INVALID : ERR_IO;
        err_wrap(err, "%s", file->name);
        if (missing)
            return err_hint(err, "mount the file into the container at this path");
        return hint_to_make_readable(err);
    }
    if (r->in->for_image_user && !image_user_may_read(file->value)) {
        err_set(err, ERR_IO, "%s: '%s' cannot be read by user %d", file->name, file->value,
                IMAGE_UID);
        return hint_to_make_readable(err);
    }
    if (strlen(text) != len)
        return err_set(err, ERR_INVALID, "%s: '%s' has a NUL byte in it", file->name, file->value);
    while (len > 0 && strchr("\r\n", text[len - 1]) != NULL)
        text[--len] = '\0';
    if (len == 0)
        return err_set(err, ERR_INVALID, "%s: '%s' is empty", file->name, file->value);
    *ret = text;
    return true;
}

/* NAME, or what stands in the file that NAME_FILE names. */
bool reader_get(struct reader *r, const char *name, struct var *ret, struct err *err)
{
    struct var var = {name, reader_look(r, name)};
    struct var file = {str_fmt(r->arena, "%s_FILE", name), NULL};

    file.value = reader_look(r, file.name);
    if (var.value != NULL && file.value != NULL)
        return err_set(err, ERR_INVALID, "both %s and %s are set: use one", var.name, file.name);
    if (file.value != NULL && !read_value_file(r, &file, &var.value, err))
        return false;
    if (var.value != NULL && !reader_check_characters(&var, err))
        return false;
    *ret = var;
    return true;
}

/* The first that is set. `names` ends with NULL. */
bool reader_get_first(struct reader *r, const char *const *names, struct var *ret, struct err *err)
{
    struct var first = {names[0], NULL};

    for (; *names != NULL; names++) {
        struct var var;

        if (first.value == NULL && !reader_get(r, *names, &var, err))
            return false;
        if (first.value == NULL && var.value != NULL)
            first = var;
        reader_look(r, *names);
        reader_look(r, str_fmt(r->arena, "%s_FILE", *names));
    }
    *ret = first;
    return true;
}

/* ---- passwords ---- */

/* What stands in examples, in place of a password. */
static bool is_placeholder(const char *password)
{
    /* clang-format off */
    static const char *const beginnings[] = {
        "change-me", "change-this", "change_me", "change_this", "changeme", "changethis",
        "my_password", "password_here", "placeholder", "replace-me", "replace_me", "replace_with",
        "replaceme", "secure_password", "strong_password", "your-password", "your-secure",
        "your-strong", "your_password", "your_secure", "your_strong", "your_super",
        "yourpassword",
    };
    /* clang-format on */

    for (size_t i = 0; i < COUNT_OF(beginnings); i++)
        if (strncasecmp(password, beginnings[i], strlen(beginnings[i])) == 0)
            return true;
    return password[0] == '<' && str_ends(password, ">");
}

/* What is tried first by whoever wants to get in. */
static bool is_common(const char *password)
{
    /* clang-format off */
    static const char *const words[] = {
        "1234", "12345", "admin", "admin123", "app_user", "default", "example", "letmein",
        "master", "myapp", "mysecretpassword", "pass", "passw0rd", "password", "password1",
        "password123", "pgduet", "postgres", "postgresql", "qwerty", "replica", "replication",
        "replicator", "root", "secret", "test", "welcome",
    };
    /* clang-format on */

    if (str_starts(password, "123456"))
        return true;
    for (size_t i = 0; i < COUNT_OF(words); i++)
        if (strcasecmp(password, words[i]) == 0)
            return true;
    return false;
}

static bool refuse_password(const struct var *var, const char *why, struct err *err)
{
    err_set(err, ERR_INVALID, "%s %s", var->name, why);
    return err_hint(err, "make a good one with: openssl rand -base64 32");
}

/* Of our own deployments, which know what they need. */
bool reader_own_password(struct reader *r, const char *name, const char *why, struct err *err)
{
    struct var var;

    if (!reader_get(r, name, &var, err))
        return false;
    if (var.value == NULL)
        return refuse_password(&var, why, err);
    if (is_placeholder(var.value))
        return refuse_password(&var, "is a placeholder, not a password", err);
    if (is_common(var.value))
        return refuse_password(&var, "is among the first passwords that anybody tries", err);
    reader_add_env(r, name, var.value);
    return true;
}

/* Of a lone container, under `key` in .env. What was there at the first start stays: the database
 * was made with it. */
bool reader_lone_password(struct reader *r, const char *key, const struct var *var, struct err *err)
{
    const char *stored = env_get(&r->secrets, key);
    bool goes_out = r->follows && strcmp(key, "POSTGRES_REPLICATION_PASSWORD") == 0;

    if (var->value != NULL && is_placeholder(var->value)) {
        if (!r->in->has_data)
            return refuse_password(var, "is a placeholder, not a password", err);
        reader_note(r, str_fmt(r->arena,
                               "%s is a placeholder, not a password: change it with ALTER ROLE",
                               var->name));
    }
    if (stored == NULL || stored[0] == '\0' || (goes_out && var->value != NULL)) {
        stored = var->value;
    } else if (var->value != NULL && strcmp(var->value, stored) != 0) {
        reader_note(
            r, str_fmt(r->arena,
                       "%s is not the one the database was made with; it is not changed by the "
                       "environment: use ALTER ROLE",
                       var->name));
    }
    reader_add_env(r, key,
                   stored != NULL ? stored : random_password(r->arena, GENERATED_PASSWORD_LEN));
    return true;
}

/* The superuser's, when the environment has two names for it. */
const struct var *reader_one_of(struct reader *r, const struct var *password,
                                const struct var *admin)
{
    if (password->value == NULL)
        return admin;
    if (admin->value != NULL)
        reader_note(r,
                    str_fmt(r->arena, "%s is ignored: the password of " CONTRACT_SUPERUSER " is %s",
                            admin->name, password->name));
    return password;
}

bool reader_password_missing(const struct reader *r, const char *key, const struct var *var)
{
    return var->value == NULL && !r->in->has_data && env_get(&r->secrets, key) == NULL;
}

bool reader_refuse_missing(const struct var *var, struct err *err)
{
    err_set(err, ERR_INVALID, "%s is not set, and a new database needs a password", var->name);
    return err_hint(err, "docker run -e %s=\"$(openssl rand -base64 32)\" ...", var->name);
}

/* ---- names, directories, arguments of initdb ---- */

bool reader_is_superuser(const struct var *user)
{
    return user->value == NULL || strcmp(user->value, CONTRACT_SUPERUSER) == 0;
}

bool reader_check_user(const struct var *var, struct err *err)
{
    const char *name = var->value;

    if (str_starts(name, "pg_") || strcmp(name, "public") == 0 || strcmp(name, "none") == 0)
        return err_set(err, ERR_INVALID, "%s: the name '%s' is PostgreSQL's own", var->name, name);
    if (str_starts(name, "pgduet_"))
        return err_set(err, ERR_INVALID, "%s: names with pgduet_ are pgduet's own", var->name);
    return true;
}

bool reader_check_node_name(const struct var *var, struct err *err)
{
    if (var->value[0] == '-')
        return err_set(err, ERR_INVALID, "%s: the name '%s' begins with '-'", var->name,
                       var->value);
    if (!settings_check_text(var->value, 1, NODE_NAME_MAX, "_-", err))
        return err_wrap(err, "%s", var->name);
    return true;
}

/* The image names its own data directory, which says nothing about what somebody wants. */
const char *reader_look_pgdata(struct reader *r)
{
    const char *value = reader_look(r, "PGDATA");

    return value != NULL && strcmp(value, CONTRACT_DATA_DIR) == 0 ? NULL : value;
}

bool reader_take_data_dir(struct reader *r, const struct var *var, struct err *err)
{
    size_t len = strlen(var->value);

    while (len > 1 && var->value[len - 1] == '/')
        len--;
    if (var->value[0] != '/' || len == 1)
        return err_set(err, ERR_INVALID, "%s: '%s' is not an absolute path of a directory",
                       var->name, var->value);
    r->out.data_dir = str_ndup(r->arena, var->value, len);
    return reader_check_characters(var, err);
}

void reader_set_common(struct reader *r, const char *node)
{
    r->out.node = node;
    reader_set(r, "cluster", "this_node", node);
    reader_set(r, "cluster", "init_scripts", CONTRACT_INIT_SCRIPTS);
    reader_set(r, "postgres", "local_auth", "peer");
}

bool reader_put_initdb_args(struct reader *r, const struct var *args, const struct var *wal_dir,
                            struct err *err)
{
    struct var all = *args;

    if (wal_dir->value != NULL) {
        all.name = args->value != NULL ? args->name : wal_dir->name;
        all.value = str_fmt(r->arena, "%s%s--waldir=%s", args->value != NULL ? args->value : "",
                            args->value != NULL ? " " : "", str_shell(r->arena, wal_dir->value));
    }
    return all.value == NULL || reader_put(r, "postgres", "initdb_args", &all, err);
}

/* ---- lone containers ---- */

/* The store is bound to the node's name, which therefore never changes once it is there. */
bool reader_lone_name(struct reader *r, const char *fallback, struct err *err)
{
    const char *stored = env_get(&r->secrets, "PGDUET_NODE");
    struct var var = {"PGDUET_NODE", reader_look(r, "PGDUET_NODE")};

    if (var.value == NULL)
        var.value = fallback;
    else if (!reader_check_node_name(&var, err))
        return false;
    else if (stored != NULL && strcmp(stored, var.value) != 0)
        reader_note(r, str_fmt(r->arena,
                               "PGDUET_NODE is ignored: the node is called %s since its first "
                               "start",
                               stored));
    reader_set_common(r, stored != NULL ? stored : var.value);
    reader_add_env(r, "PGDUET_NODE", r->out.node);
    return true;
}

/* The engine collects what a lone container says; files are made only for whoever asks for them. */
bool reader_lone_node(struct reader *r, struct err *err)
{
    const char *parent = path_parent(r->arena, r->out.data_dir);
    bool files = str_equal(reader_look(r, "PGDUET_LOG_TO"), "files");

    if (strcmp(parent, "/") == 0) {
        err_set(err, ERR_INVALID,
                "the data directory '%s' lies in the root directory, but needs one that it shares "
                "with pgduet's own files",
                r->out.data_dir);
        return err_hint(err, "put it one deeper: %s/data", r->out.data_dir);
    }
    reader_set(r, "cluster", "store", path_join(r->arena, parent, "pgduet"));
    reader_set_node(r, r->out.node, "host", "127.0.0.1");
    reader_set_node(r, r->out.node, "port", r->port);
    reader_set_node(r, r->out.node, "data", r->out.data_dir);
    reader_set_node(r, r->out.node, "logs",
                    files ? str_fmt(r->arena, "logs/%s", r->out.node) : "run/logs");
    reader_set(r, "postgres", "log_to", files ? "files" : "stderr");
    reader_set_node(r, r->out.node, "log_name", "postgresql");
    return true;
}

/* In run/, because everything else may be read-only. */
void reader_lone_hba(struct reader *r)
{
    struct str out = {.arena = r->arena};

    str_add(&out, "# Made from the environment when the container was started.\n");
    if (r->tls_clients)
        str_add(&out, "hostssl all all all cert\n");
    if (r->replicator != NULL)
        str_addf(&out, "host replication %s all scram-sha-256\n", r->replicator);
    str_addf(&out, "host all all all %s\n", r->method);
    r->out.hba = str_text(&out);
    reader_set(r, "postgres", "hba_file", "run/pg_hba.conf");
}

void reader_trust(struct reader *r, const struct var *var)
{
    r->method = "trust";
    reader_set(r, "postgres", "allow_trust", "on");
    reader_note(
        r, str_fmt(r->arena,
                   "%s=%s: everybody who reaches the port is let in without a password, as any "
                   "user; for throw-away servers only",
                   var->name, var->value));
}
