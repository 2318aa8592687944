"""What every table shares: engine, sessions, rights, batches, pages, tenants."""
