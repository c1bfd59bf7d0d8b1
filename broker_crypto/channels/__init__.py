"""What a record becomes: `topic` (sealed for an MLS group) and `plain` (as it is). All channels have `seal`, `open`, `ready`.

Plain functions over lists, without await, I/O or clock. What must be durable first, or must wait, is part of the result.
"""
