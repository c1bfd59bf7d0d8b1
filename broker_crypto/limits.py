"""Every number of broker_crypto: unit, source, and the error that it causes.

First those of specifications, then the constants of our own formats (changing one changes the format), then bounds of
memory and time (changing one changes nothing that others see).
"""

from __future__ import annotations

# --- specifications -------------------------------------------------------------------------------------------------
MAX_PSKS = 2**16 - 1  # pre-shared keys of one commit: count is a uint16 in PSKLabel (RFC 9420 section 8.4): UsageError
MAX_GENERATION = 2**32 - 1  # generation of a ratchet, a uint32 (RFC 9420 section 9.1): UsageError when sending

# --- of specifications --------------------------------------------------------------------------------------------
MAX_EXPAND_BLOCKS = 255  # blocks of Nh bytes that HKDF-Expand gives, RFC 5869 section 2.3: UsageError
MAX_VECTOR = 2**30 - 1  # bytes of a variable-size vector, RFC 9420 section 2.1.2: UsageError when writing
PRIME_X25519 = 2**255 - 19  # u of a public key is below, RFC 7748 section 4.1: MalformedInput
PRIME_X448 = 2**448 - 2**224 - 1  # RFC 7748 section 4.2: MalformedInput
SMALL_ORDER_X25519 = frozenset(  # u of orders 1, 2, 4 and 8 on the curve and on its twist: MalformedInput
    {
        0,
        1,
        0x00B8495F16056286FDB1329CEB8D09DA6AC49FF1FAE35616AEB8413B7C7AEBE0,
        0x57119FD0DD4E22D8868E1C58C45C44045BEF839C55B1D0B1248C50A3BC959C5F,
        PRIME_X25519 - 1,
    }
)
PRIME_ED25519 = PRIME_X25519  # y of a public key is below, RFC 8032 section 5.1.3: MalformedInput
SMALL_ORDER_ED25519 = frozenset(  # y of orders 1, 2, 4 and 8: MalformedInput
    {
        0,
        1,
        0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826,
        0x7A03AC9277FDC74EC6CC392CFA53202A0F67100D760B3CBA4FD84D3D706A17C7,
        PRIME_X25519 - 1,
    }
)
SMALL_ORDER_X448 = frozenset({0, 1, PRIME_X448 - 1})  # u of orders 1, 2 and 4 on the curve and on its twist: MalformedInput
SMALL_ORDER_ED448 = frozenset({0, 1, PRIME_X448 - 1})  # y of orders 1, 2 and 4, RFC 8032 section 5.2: MalformedInput
ORDER_P256 = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551  # of the base point, FIPS 186-5 with SP 800-186
ORDER_P384 = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFC7634D81F4372DDF581A0DB248B0A77AECEC196ACCC52973
ORDER_P521 = (
    0x01FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFA51868783BF2F966B7FCC0148F709A5D03BB5C9B8899C47AEBB6FB71E91386409
)

# --- constants of our formats -------------------------------------------------------------------------------------
MAX_RECORD = 16 * 1024 * 1024  # bytes of headers || payload in a topic record: MalformedRecord
MAX_GROUP_RECORD = 1024 * 1024  # bytes of one record of the group log; larger ones are passed over, own ones GroupTooLarge
MAX_TOPIC_RECORD = 2 * MAX_RECORD + 4096  # bytes of a whole topic record, padded, sealed and signed: MalformedRecord
MAX_GROUP_POLICY = 512 * 1024  # bytes of the group's policy: MalformedInput
MAX_LEAVE = 4096  # bytes of a Leave: MalformedInput
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
MAX_ROW = 64 * 1024 * 1024  # bytes of one row of the store in single-object encoding: MalformedInput
VERIFIED_ROOTS = 1024  # roots of verified batches kept by a reader for one leaf; older ones cost a signature check again
SENDER_KEYS = 1024  # derived keys kept by a reader for one leaf: streams x partitions x epochs; older ones are derived again
PLACES_PER_PARTITION = 1024  # subjects of a partition whose place hash is kept
WINDOWS_PER_LEAF = 1024  # streams x partitions of one leaf whose sequences a reader remembers; then the longest unused is forgotten
WINDOW_RECORDS = 1024  # newest sequences of one stream remembered with their position: older copies carry no mark
EVENTS_QUEUE = 1024  # events waiting in one `agent.events()`; the oldest is dropped and counted
BEHIND_IDS = 1024  # epoch ids that were not in the log when looked for
BEHIND_SECONDS = 60.0
MAX_FORWARD = 1024  # generations that one message may be ahead of its sender's ratchet (RFC 9420 section 9.1): PeerError(rule="generation")
MAX_SKIPPED = 1024  # keys of passed generations kept by one ratchet for messages that come late; the oldest go first
MAX_PENDING = 4096  # proposals of one epoch that wait for a commit: PeerError(rule="pending_full")

POLICY_MAX = 256 * 1024  # bytes of a policy file: PolicyError before it is parsed
POLICY_DEPTH = 16  # levels of a policy file: PolicyError
KAFKA_TOPIC_MAX = 249  # characters of a topic's name (org.apache.kafka.common.internals.Topic): PolicyError
POLICY_VALUE_MAX = 64 * 1024  # bytes of what `${NAME}` or `${file:PATH}` stands for: PolicyError


# --- times --------------------------------------------------------------------------------------------------------
EPOCH_WAIT_SECONDS = 30.0  # default of `epoch_wait`
ROTATION_INTERVAL_SECONDS = 720 * 3600.0  # default of `rotation_interval`
ROTATION_JITTER = 0.1
FOUND_DELAY_SECONDS = 2.0  # one that is no admin founds only after this
SPREAD_SECONDS = 2.0  # random 0..this before a commit that every member finds due at once
CERTIFICATE_LOOK_SECONDS = 60.0  # how often an agent looks whether its certificate's file holds another one
CERTIFICATE_LAST_PART = 0.1  # of its life, in which an agent says once a day that it ends
AGAIN_MS = 24 * 3600_000  # who locks an admin out twice within this is barred, where its file says `on_locked_out: remove`
FAILOVER_SECONDS = 60.0  # how long a replicated log may stay behind the cursor before it counts as rolled back
ENDS_SECONDS = 10.0  # how long a broker may take to tell the ends of a topic; and how old they may be after a lost race
RESYNC_MIN_SECONDS, RESYNC_MAX_SECONDS, RESYNC_FORGET_SECONDS = 10.0, 600.0, 600.0
CLOSE_GRACE_SECONDS = 0.5  # a closing agent lets its loops come to their end for so long, then ends them where they wait
APPEND_RETRY_SECONDS = 2.0  # x tries: the same bytes again when the log shows no answer
CLOCK_AHEAD_LOOK_SECONDS = 10.0  # how soon a member whose clock lags behind a commit looks again
LIVE_SECONDS = 60.0  # what was on its way from a store that was behind its log has landed after this (COMMIT_TIME_WINDOW_MS)
RETENTION_JUMP_MS = 3600_000  # wall clock ahead of the monotonic one by more: nothing is erased for a while
RETENTION_HOLD_MS = 24 * 3600_000  # for so long
RETENTION_MARK_MS = 3600_000  # how old the stored moment may be at which an epoch was known to be current
CURSOR_CHECK_SECONDS = 10.0  # at most one comparison of the cursor in this time for records that look odd

# --- store --------------------------------------------------------------------------------------------------------
STORE_KIND = 32  # characters of a row's kind: UsageError
STORE_KEY = 1024  # bytes of a row's key: UsageError
STORE_ROW = 256 * 1024**2  # bytes of a row's value: UsageError
STORE_SHARED_COMMIT = 256  # transactions that share one fsync at most
STORE_BUSY_SECONDS = 5.0  # how long a write waits for another process that is writing: StoreUnavailable
STORE_ERASE_SECONDS = 1.0  # after a write, until what it deleted or overwrote is gone from the files
STORE_ERASE_RETRY_SECONDS = 0.05  # first wait when a reader holds an erasure up; doubles up to STORE_ERASE_SECONDS
TRIES_A_TURN = 8  # appends before the loop gives way to others
LOST_RACES_BEFORE_BLIND = 3  # refusals without a commit for our epoch (somebody writes junk): append without the expected position
HOLD_SECONDS = 60.0  # how long fetched messages that nobody asks for are kept from redelivery
ROUTES = 4096  # subjects and topics whose rule an agent remembers
CLOCK_JUMP_MS = 1_500  # wall clock against the monotonic one within a second: sealing objects draw a new stream
SEALED_BYTES = 176  # bytes that sealing adds at most to a payload without headers and padding, signed alone
