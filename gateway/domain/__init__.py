"""Rules in plain Python: values in, values out. Imports nothing of ours outside this package and no framework."""
