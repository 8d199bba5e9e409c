/* Inside of contract_read(): what its vocabularies share. Everything lives in the reader's arena.
 */
#pragma once

#include "conf/contract.h"

#define CONTRACT_DATA_DIR "/bitnami/postgresql/data"
#define CONTRACT_INIT_SCRIPTS "/docker-entrypoint-initdb.d"
#define CONTRACT_SUPERUSER "postgres"
#define CONTRACT_PORT "5432"

struct var { /* a variable or a flag as somebody set it */
    const char *name;
    const char *value; /* NULL: not set, or empty */
};

struct reader {
    struct arena *arena;
    const struct contract_in *in;
    const char *dir; /* the deployment directory */

    struct var *vars;
    bool *used; /* of each: somebody asked for it */
    size_t n_vars;
    struct env secrets; /* of a former start; empty: none */

    struct contract out;
    const char *conf; /* the text of pgduet.conf so far */
    struct str env;   /* of .env */

    /* of a lone container */
    bool follows;            /* a primary outside */
    const char *port;        /* of the server */
    const char *method;      /* how clients log in */
    const char *replicator;  /* a replication user from outside; NULL: none */
    bool tls_clients;        /* must show certificates */
    const char *extra_flags; /* of the server, as one text */
};

/* ---- output ---- */

/* A sentence for the log. */
void reader_note(struct reader *r, const char *text);
void reader_set(struct reader *r, const char *section, const char *key, const char *value);
void reader_set_node(struct reader *r, const char *node, const char *key, const char *value);
/* A value from outside: checked here, where its variable can still be named. ERR_INVALID. */
MUST_CHECK bool reader_put(struct reader *r, const char *section, const char *key,
                           const struct var *var, struct err *err);
/* A line of .env. */
void reader_add_env(struct reader *r, const char *name, const char *value);

/* ---- variables ---- */

/* Take the environment in. First of all. */
void reader_collect(struct reader *r);
/* The value as it stands, NULL when there is none; marks it as used. */
const char *reader_look(struct reader *r, const char *name);
/* NAME, or what stands in the file that NAME_FILE names. ERR_INVALID: both, or a control character;
 * ERR_IO: the file. */
MUST_CHECK bool reader_get(struct reader *r, const char *name, struct var *ret, struct err *err);
/* The first of several names that is set; `names` ends with NULL. */
MUST_CHECK bool reader_get_first(struct reader *r, const char *const *names, struct var *ret,
                                 struct err *err);
/* No line break in it: that would end a line of pgduet.conf, .env or a passfile. */
MUST_CHECK bool reader_check_characters(const struct var *var, struct err *err);

/* ---- passwords ---- */

/* Of our own deployments, which know what they need: missing (with the words `why`), examples' and
 * common ones are ERR_INVALID. */
MUST_CHECK bool reader_own_password(struct reader *r, const char *name, const char *why,
                                    struct err *err);
/* Of a lone container, under `key` in .env. What was there at the first start stays: the database
 * was made with it. None: a random one. */
MUST_CHECK bool reader_lone_password(struct reader *r, const char *key, const struct var *var,
                                     struct err *err);
/* The superuser's, when the environment has two names for it. */
const struct var *reader_one_of(struct reader *r, const struct var *password,
                                const struct var *admin);
/* Nobody gave it, and a new database needs it. */
bool reader_password_missing(const struct reader *r, const char *key, const struct var *var);
/* Says so; false. */
bool reader_refuse_missing(const struct var *var, struct err *err);

/* ---- names, directories, arguments of initdb ---- */

bool reader_is_superuser(const struct var *user);
MUST_CHECK bool reader_check_user(const struct var *var, struct err *err);
MUST_CHECK bool reader_check_node_name(const struct var *var, struct err *err);
/* PGDATA where somebody set it; the image's own says nothing about what somebody wants. */
const char *reader_look_pgdata(struct reader *r);
MUST_CHECK bool reader_take_data_dir(struct reader *r, const struct var *var, struct err *err);
/* What holds for every container of the image. */
void reader_set_common(struct reader *r, const char *node);
MUST_CHECK bool reader_put_initdb_args(struct reader *r, const struct var *args,
                                       const struct var *wal_dir, struct err *err);

/* ---- lone containers ---- */

/* Name the node; its first name stays. */
MUST_CHECK bool reader_lone_name(struct reader *r, const char *fallback, struct err *err);
/* Once everything is known: the node itself, and its own pg_hba.conf. */
MUST_CHECK bool reader_lone_node(struct reader *r, struct err *err);
void reader_lone_hba(struct reader *r);
/* Everybody may in, and is told so. */
void reader_trust(struct reader *r, const struct var *var);

/* ---- the vocabularies ---- */

MUST_CHECK bool contract_read_own(struct reader *r, struct err *err);
MUST_CHECK bool contract_read_official(struct reader *r, struct err *err);
MUST_CHECK bool contract_read_bitnami(struct reader *r, struct err *err);
/* Is it a variable that only Bitnami's image knows? */
bool contract_is_bitnami(struct arena *arena, const char *name);

/* ---- what comes beside them ---- */

/* PGDUET_KEY for each key of [cluster] and [postgres]. */
MUST_CHECK bool contract_take_settings(struct reader *r, struct err *err);
/* Flags of the server: as one text, and as arguments. */
MUST_CHECK bool contract_take_extra_flags(struct reader *r, struct err *err);
MUST_CHECK bool contract_take_arguments(struct reader *r, struct err *err);
