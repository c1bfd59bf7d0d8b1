"""Commits, foundings and topic records that the public API cannot make: right in everything but one thing, signed with real keys.

`scribe` builds, with one place to bend for each part of a record. `commits`, `leaves`, `infos`, `secret`, `foundings` and `records`
name what can be wrong, one switch for each check. `reach` says which rules of docs/validation.md no record of a log can break, and why.
"""
