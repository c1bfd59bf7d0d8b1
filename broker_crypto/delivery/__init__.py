"""The group log: what a record of it means (rules), what a member makes of it (membership), what it writes (committer).

`rules` and `membership` are values without I/O; `loop` is the only module that awaits. Ports (`ports`) are filled by connectors.
"""
