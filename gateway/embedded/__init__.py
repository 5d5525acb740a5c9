"""PostgreSQL and a broker that come with the package, and everything started together."""
