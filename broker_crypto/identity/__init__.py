"""Who an agent is: certificates, the closed profile that says when a chain counts, private keys, the small CA.

`load` reads an identity, `profile.read_chain` and `profile.check_chain` judge anybody's, `ca` issues.
"""

from broker_crypto.identity.identity import Identity, generate, load, of
from broker_crypto.identity.profile import Chain, check_chain, read_anchor, read_chain

__all__ = ["Chain", "Identity", "check_chain", "generate", "load", "of", "read_anchor", "read_chain"]
