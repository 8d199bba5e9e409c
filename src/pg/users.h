/* Application users and their schemas. Everything runs on the primary, in one transaction per
 * database; passwords go to the server as SCRAM verifiers only, and are kept out of its log. */
#pragma once

#include "pg/sql.h"

struct user_spec {
    const char *name;
    const char *password; /* clear; NULL leaves an existing one alone */
    const char *schema;   /* NULL: public */
    bool createdb;
    bool if_not_exists; /* what exists already is left alone and no error */
};

enum user_created { USER_CREATED, USER_SCHEMA_ADDED, USER_EXISTS };

/* The user that comes with a new cluster: owner of `conn`'s database, who may make further ones, or
 * a superuser beside it. Errors as of user_create. */
MUST_CHECK bool user_create_first(struct arena *arena, PGconn *conn, const char *name,
                                  const char *password, bool superuser, struct err *err);

/* Create, or add the schema to an existing user and keep its password. `conn` is a superuser's, to
 * the cluster's database. ERR_CONFLICT: exists already and nothing is to be added (hint: `user
 * password`). ERR_INVALID: reserved or impossible name (empty, over 63 bytes, NUL, pg_...,
 * pgduet_..., the superuser). */
MUST_CHECK bool user_create(struct arena *arena, PGconn *conn, const struct user_spec *spec,
                            enum user_created *ret, struct err *err);

MUST_CHECK bool user_set_password(struct arena *arena, PGconn *conn, const char *name,
                                  const char *password, struct err *err);

struct user_info {
    const char *name;
    bool superuser, createdb, can_login;
    const char *schemas;     /* owned, in the cluster's database: "app, migration" */
    const char *search_path; /* set on the role; NULL when not */
    int connections;
};
MUST_CHECK bool user_list(struct arena *arena, PGconn *conn, struct user_info **ret, size_t *ret_n,
                          struct err *err);

/* Reassign what the user owns to `target->user` in every database that takes connections, then drop
 * the role; with drop_schema its schemas go first, with everything in them. Sessions of the user
 * are ended. The role cannot log in from the first step on; on failure it is left so and the error
 * says what remains. `ret_notes`: what was done in which database, one line each. ERR_NOT_FOUND,
 * ERR_INVALID. */
MUST_CHECK bool user_delete(struct arena *arena, const struct sql_target *target, const char *name,
                            bool drop_schema, const char **ret_notes, struct err *err);
