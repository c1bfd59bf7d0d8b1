"""Messaging Layer Security (RFC 9420), sans I/O: a group is a value, an operation returns the next one and what to send.

    group, own_leaf, joining     a member: founding, commits, messages; what it brings; joining by a Welcome
    public                       the group without secrets, which judges every commit for everybody
    validation                   the rules by name; leaf_rules, tree_rules, proposal_list check them
    ratchet_tree, treekem        keys of the group; tree_math, tree_draft, census, update_path beside them
    key_schedule, psk            secrets of an epoch; transcript what they are bound to
    secret_tree, protection      keys of messages, and messages under them
    framing, proposals, leaf     what is on the wire; group_info, welcome for those outside

Nothing here reads a clock, a file or a socket; randomness and time are arguments. A refused input changes nothing.
"""
