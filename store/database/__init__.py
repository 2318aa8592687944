"""The infrastructure of all tables: engine, sessions, rights, batches, pages, tenants."""
