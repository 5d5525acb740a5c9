"""SQL. Functions that take a connection; the caller owns the transaction unless a docstring says otherwise."""
