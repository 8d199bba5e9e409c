/* From the environment to pgduet.conf and .env. Three vocabularies lead to the same deployment: our
 * own, the official PostgreSQL image's and Bitnami's. Variables that nobody asked for are named in
 * the end instead of being dropped silently. */
#include "conf/contract.h"

#include "conf/contract_reader.h"

static void decide_kind(struct reader *r)
{
    if (reader_look(r, "PGDUET_NODES") != NULL) {
        r->out.kind = CONTRACT_PGDUET;
        r->out.reason = "environment as for pgduet's own deployments, because PGDUET_NODES is set";
        return;
    }
    for (size_t i = 0; i < r->n_vars; i++) {
        if (!contract_is_bitnami(r->arena, r->vars[i].name))
            continue;
        r->out.kind = CONTRACT_BITNAMI;
        r->out.reason = str_fmt(r->arena, "environment as for Bitnami's image, because %s is set",
                                r->vars[i].name);
        return;
    }
    r->out.kind = CONTRACT_OFFICIAL;
    r->out.reason =
        "environment as for the official PostgreSQL image, because neither PGDUET_NODES "
        "nor a variable of Bitnami's image is set";
}

const char *contract_name(enum contract_kind kind)
{
    switch (kind) {
    case CONTRACT_PGDUET:
        return "pgduet";
    case CONTRACT_OFFICIAL:
        return "official";
    case CONTRACT_BITNAMI:
        return "bitnami";
    }
    abort();
}

static void note_unused(struct reader *r)
{
    for (size_t i = 0; i < r->n_vars; i++) {
        const char *name = r->vars[i].name;

        if (r->used[i] || !(str_starts(name, "POSTGRES_") || contract_is_bitnami(r->arena, name)))
            continue;
        reader_note(r, str_fmt(r->arena, "%s is ignored: only init scripts see it", name));
    }
}

static void list_secrets(struct reader *r)
{
    r->out.secrets = ARENA_ARRAY(r->arena, const char *, r->n_vars + 1);
    for (size_t i = 0; i < r->n_vars; i++) {
        const char *name = r->vars[i].name;

        if (r->used[i] && strstr(name, "PASSWORD") != NULL && !str_ends(name, "_FILE"))
            r->out.secrets[r->out.n_secrets++] = name;
    }
}

static bool read_kind(struct reader *r, struct err *err)
{
    switch (r->out.kind) {
    case CONTRACT_PGDUET:
        return contract_read_own(r, err);
    case CONTRACT_OFFICIAL:
        return contract_read_official(r, err);
    case CONTRACT_BITNAMI:
        return contract_read_bitnami(r, err);
    }
    abort();
}

/* Nothing is handed out that a start would refuse. */
static bool check_result(struct reader *r, struct err *err)
{
    struct conf conf;

    if (!conf_parse(r->arena, r->dir, r->conf, str_text(&r->env), &conf, err))
        return err_wrap(err, "what the environment says makes no configuration");
    if (strcmp(conf.replication_user, CONTRACT_SUPERUSER) == 0 ||
        strcmp(conf.replication_user, conf.user) == 0)
        return err_set(err, ERR_INVALID, "'%s' cannot be the user for replication, too",
                       conf.replication_user);
    return true;
}

static const char conf_start[] =
    "# Made from the environment when the container was started. Changes made here are lost.\n"
    "\n[cluster]\n\n[postgres]\n";

bool contract_read(struct arena *arena, const struct contract_in *in, struct contract *ret,
                   struct err *err)
{
    struct reader r = {.arena = arena,
                       .in = in,
                       .conf = conf_start,
                       .env = {.arena = arena},
                       .port = CONTRACT_PORT,
                       .method = "scram-sha-256"};

    r.out.data_dir = CONTRACT_DATA_DIR;
    reader_collect(&r);
    r.dir = reader_look(&r, "PGDUET_DIR");
    if (r.dir == NULL || r.dir[0] != '/')
        r.dir = "/pgduet";
    decide_kind(&r);
    if (in->secrets != NULL &&
        !env_parse(arena, ".env of the first start", in->secrets, &r.secrets, err))
        return false;
    if (!read_kind(&r, err))
        return false;
    if (r.out.kind != CONTRACT_PGDUET) {
        if (!reader_lone_node(&r, err))
            return false;
        reader_lone_hba(&r);
    }
    if (!contract_take_settings(&r, err) || !contract_take_extra_flags(&r, err) ||
        !contract_take_arguments(&r, err))
        return false;
    note_unused(&r);
    list_secrets(&r);
    if (!check_result(&r, err))
        return false;
    r.out.conf = r.conf;
    r.out.env = str_text(&r.env);
    *ret = r.out;
    return true;
}
