-- Creates the roles of docs/security.md. The PostgreSQL image runs this in an empty volume with psql, as the superuser;
-- the passwords come from the environment.
\set owner_password `echo "$OWNER_PASSWORD"`
\set worker_password `echo "$WORKER_PASSWORD"`
CREATE ROLE dspex_owner LOGIN PASSWORD :'owner_password' NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;
CREATE ROLE dspex_worker LOGIN PASSWORD :'worker_password' NOSUPERUSER NOBYPASSRLS NOCREATEDB NOCREATEROLE;
GRANT dspex_worker TO dspex_owner;
CREATE DATABASE dspex OWNER dspex_owner;
REVOKE ALL ON DATABASE dspex FROM PUBLIC;
GRANT CONNECT ON DATABASE dspex TO dspex_worker;
\connect dspex
ALTER SCHEMA public OWNER TO dspex_owner;
REVOKE ALL ON SCHEMA public FROM PUBLIC;
GRANT USAGE ON SCHEMA public TO dspex_worker;
ALTER DEFAULT PRIVILEGES FOR ROLE dspex_owner IN SCHEMA public
    GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO dspex_worker;
