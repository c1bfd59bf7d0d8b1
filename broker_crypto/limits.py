"""Every number of broker_crypto: unit, source, and the error that it causes.

First those of specifications, then the constants of our own formats (changing one changes the format), then bounds of
memory and time (changing one changes nothing that others see).
"""

from __future__ import annotations

# --- specifications -------------------------------------------------------------------------------------------------
MAX_PSKS = 2**16 - 1  # pre-shared keys of one commit: count is a uint16 in PSKLabel (RFC 9420 section 8.4): UsageError
MAX_GENERATION = 2**32 - 1  # generation of a ratchet, a uint32 (RFC 9420 section 9.1): UsageError when sending

# --- constants of our formats -------------------------------------------------------------------------------------
MAX_RECORD = 16 * 1024 * 1024  # bytes of headers || payload in a topic record: MalformedRecord
MAX_GROUP_RECORD = 1024 * 1024  # bytes of one record of the group log; larger ones are passed over, own ones GroupTooLarge
MAX_BATCH = 64  # records signed together: 2 ** 6, batch_path at most 6 hashes: MalformedRecord
MAX_SEQUENCE = 2**32 - 1  # sequence of a topic record: MalformedRecord
MAX_LEAF = 2**31 - 1  # leaf index in a topic record: MalformedRecord
MAX_EPOCH = 2**63 - 1  # epoch in a topic record: MalformedRecord
STREAM_BYTES = 64 * 1024**3  # bytes sealed under one key before the stream is redrawn
COMMIT_TIME_WINDOW_MS = 60_000  # signed time against the broker's time of the record: the commit does not count
CLOCK_AHEAD_MS = 30 * 60_000  # counted time ahead of the local clock: LogClockAhead
RETIME_MAX_MS = 20 * 60_000  # how far an own commit may take the broker's time instead of its own clock
RATE_WINDOW_MS = 10_000  # commits of one key or identity in force within this window
RATE_KEY = 4
RATE_IDENTITY = 16
CHAIN_MAX = 4  # certificates in a credential, leaf first
CERTIFICATE_MAX = 8192  # bytes of one certificate: PeerError before it is parsed
IDENTITY_MAX = 2048  # bytes of an identity, a prefix, a role pattern (the SPIFFE ID limit)
GROUP_NAME_MAX = 200  # characters of a group's name; with `_bc.group.` and `.g<n>` it stays below Kafka's 249

# --- bounds of memory ---------------------------------------------------------------------------------------------
VERIFIED_ROOTS = 4096  # roots of verified batches kept by a reader
EVENTS_QUEUE = 1024  # events waiting in one `agent.events()`; the oldest is dropped and counted
BEHIND_IDS = 1024  # epoch ids that were not in the log when looked for
BEHIND_SECONDS = 60.0
MAX_FORWARD = 1024  # generations that one message may be ahead of its sender's ratchet (RFC 9420 section 9.1): PeerError(rule="generation")
MAX_SKIPPED = 1024  # keys of passed generations kept by one ratchet for messages that come late; the oldest go first

# --- times --------------------------------------------------------------------------------------------------------
EPOCH_WAIT_SECONDS = 30.0  # default of `epoch_wait`
ROTATION_INTERVAL_SECONDS = 720 * 3600.0  # default of `rotation_interval`
ROTATION_JITTER = 0.1
FOUND_DELAY_SECONDS = 2.0  # one that is no admin founds only after this
FALSE_EXTERNAL_PUB_SECONDS = 2.0  # random 0..this before a path commit that mends a false external_pub
RESYNC_MIN_SECONDS, RESYNC_MAX_SECONDS, RESYNC_FORGET_SECONDS = 10.0, 600.0, 600.0
APPEND_RETRY_SECONDS = 2.0  # x tries: the same bytes again when the log shows no answer
CURSOR_CHECK_SECONDS = 10.0  # at most one comparison of the cursor in this time for records that look odd
