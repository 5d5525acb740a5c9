"""The site file: who lives where, who is told of what, written by hand in YAML and checked before it counts."""
