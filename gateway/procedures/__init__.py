"""What runs by the clock in cases, and the commands to terminals that come of it."""
