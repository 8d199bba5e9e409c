/* What a container's environment asks for, translated into a deployment: its own variables, those
 * of the official PostgreSQL image, and those of Bitnami's. */
#pragma once

#include "conf/conf.h"

enum contract_kind { CONTRACT_PGDUET, CONTRACT_OFFICIAL, CONTRACT_BITNAMI };

struct contract_in {
    char **environment;  /* "NAME=value", ended by NULL */
    char **flags;        /* of the server: "-c", "name=value", ... ended by NULL; may be NULL */
    const char *secrets; /* .env of a former start, kept beside the store; NULL: none */
    bool has_data;       /* the data directory exists and is not empty */
    bool for_image_user; /* read as root for the nodes, who must be able to read it again */
};

struct contract {
    enum contract_kind kind;
    const char *reason;   /* one sentence: which contract, and which variable decided it */
    const char *node;     /* the node of this container */
    const char *data_dir; /* its data directory */
    const char *conf;     /* text of pgduet.conf */
    const char *env;      /* text of .env */
    const char *hba;      /* text of an own hba_file; NULL: the one of the deployment serves */
    const char **secrets; /* names of the variables whose passwords are in `env` now */
    size_t n_secrets;
    const char **notes; /* sentences for the log: what is understood in another way, or ignored */
    size_t n_notes;
};

/* ERR_INVALID: a variable's value, a missing or default password, a variable and its _FILE both.
 * ERR_IO: a _FILE that cannot be read. Never prints a secret. */
MUST_CHECK bool contract_read(struct arena *arena, const struct contract_in *in,
                              struct contract *ret, struct err *err);

const char *contract_name(enum contract_kind kind);
