"""The published contracts: what terminals, platforms and API clients exchange with the gateway."""
