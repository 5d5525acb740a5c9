"""From due notices to parties: composing, sending, retrying, each party behind its own bulkhead."""
