"""What Prisma's migrate and client send, replayed: shadow schema, shadow database, advisory lock, search_path."""

import psycopg2
import pytest

from utils import MASTER, REPLICA, query, wait_until

# prisma migrate: one lock for all migrations of a database, and its table
LOCK = 72707369
MIGRATIONS_TABLE = """
    CREATE TABLE _prisma_migrations (
        id VARCHAR(36) PRIMARY KEY NOT NULL, checksum VARCHAR(64) NOT NULL, finished_at TIMESTAMPTZ,
        migration_name VARCHAR(255) NOT NULL, logs TEXT, rolled_back_at TIMESTAMPTZ,
        started_at TIMESTAMPTZ NOT NULL DEFAULT now(), applied_steps_count INTEGER NOT NULL DEFAULT 0)"""
MIGRATION = """
    CREATE TYPE "Role" AS ENUM ('USER', 'ADMIN');
    CREATE TABLE "User" ("id" SERIAL NOT NULL, "email" TEXT NOT NULL, "role" "Role" NOT NULL DEFAULT 'USER',
                         "createdAt" TIMESTAMP(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
                         CONSTRAINT "User_pkey" PRIMARY KEY ("id"));
    CREATE UNIQUE INDEX "User_email_key" ON "User"("email")"""


@pytest.fixture(scope="module")
def schemas(pair):
    """app_user with the schemas app and migration, as the page makes them."""
    for schema in ("app", "migration"):
        pair.script("create-user.sh", "app_user", "ignored-because-it-exists", schema).ok()
    return pair


def session(d, schema, node=MASTER, dbname="myapp"):
    """As the engine opens it for ?schema=NAME."""
    connection = d.app(node, dbname)
    query(connection, f'SET search_path = "{schema}"')
    return connection


def test_migrate_deploy(schemas):
    connection = session(schemas, "app")
    query(connection, f"SELECT pg_advisory_lock({LOCK})")
    other = session(schemas, "app")
    assert query(other, f"SELECT pg_try_advisory_lock({LOCK})") == [(False,)], "one migration at a time"
    query(connection, "CREATE SCHEMA IF NOT EXISTS \"app\"")
    query(connection, MIGRATIONS_TABLE)
    query(connection, "INSERT INTO _prisma_migrations (id, checksum, migration_name) VALUES ('1', 'c', '0_init')")
    query(connection, MIGRATION)
    query(connection, "UPDATE _prisma_migrations SET finished_at = now(), applied_steps_count = 1 WHERE id = '1'")
    query(connection, f"SELECT pg_advisory_unlock({LOCK})")
    assert query(other, f"SELECT pg_try_advisory_lock({LOCK}), pg_advisory_unlock({LOCK})") == [(True, True)]
    query(connection, 'INSERT INTO "User" (email) VALUES (%s)', "a@example.org")
    with pytest.raises(psycopg2.errors.UniqueViolation):
        query(connection, 'INSERT INTO "User" (email) VALUES (%s)', "a@example.org")
    assert query(connection, "SELECT schemaname FROM pg_tables WHERE tablename = 'User'") == [("app",)]
    replica = session(schemas, "app", REPLICA)
    wait_until(lambda: query(replica, 'SELECT email, role::text FROM "User"') == [("a@example.org", "USER")],
               "the row on the replica")
    with pytest.raises(psycopg2.errors.ReadOnlySqlTransaction):
        query(replica, 'DELETE FROM "User"')


def test_shadow_schema_is_emptied_and_filled(schemas):
    """With ?schema=migration: reset drops all there is, then the migrations are replayed."""
    connection = session(schemas, "migration")
    for _ in range(2):
        query(connection, 'DROP SCHEMA IF EXISTS "migration" CASCADE')
        query(connection, 'CREATE SCHEMA "migration"')
        query(connection, MIGRATION)
    assert query(connection, "SELECT count(*) FROM pg_tables WHERE schemaname = 'migration'") == [(1,)]


def test_shadow_database_is_made_and_dropped(schemas):
    """Without a shadow URL, prisma migrate dev makes a database of its own."""
    connection = session(schemas, "public", dbname="postgres")
    query(connection, 'CREATE DATABASE "prisma_migrate_shadow_db_1"')
    shadow = session(schemas, "public", dbname="prisma_migrate_shadow_db_1")
    query(shadow, MIGRATION)
    shadow.close()
    query(connection, 'DROP DATABASE "prisma_migrate_shadow_db_1"')


def test_introspection(schemas):
    """prisma db pull and its version probes."""
    connection = session(schemas, "app")
    assert query(connection, "SELECT version()")[0][0].startswith("PostgreSQL 17")
    assert query(connection, "SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = 'app'),"
                             " current_setting('server_version_num')::int >= 170000") == [(True, True)]
    assert query(connection, "SELECT current_schema()") == [("app",)]
    # the schema of the role, for clients that set none
    assert query(schemas.app(MASTER), "SHOW search_path") == [('"$user", public, app, migration',)]
