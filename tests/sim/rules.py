"""What must hold, each under its name. Those of the first part are looked at all the time, the others when a run has come to rest."""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker_crypto import errors
from broker_crypto.crypto import AuthenticationFailed
from broker_crypto.delivery import plan, state
from broker_crypto.delivery.deltas import Delta
from broker_crypto.delivery.group_policy import identity_of, key_of
from broker_crypto.delivery.membership import LEFT, MEMBER, Membership
from broker_crypto.errors import MalformedInput, RecordRefused, RemovedSender
from broker_crypto.mls.group import Group
from broker_crypto.mls.public import PublicStaged
from broker_crypto.records import Behind, GroupView, Opened
from tests.sim.broker import Published
from tests.sim.cast import GROUP
from tests.sim.ledger import Asked, of_chain

if TYPE_CHECKING:
    from tests.sim.life import Life
    from tests.sim.node import Node, Reading
    from tests.sim.simulation import Simulation


class Violation(AssertionError):
    """Something does not hold. `rule` is the name of the function that says so."""

    def __init__(self, rule: str, what: str) -> None:
        self.rule = rule
        super().__init__(f"{rule.replace('_', ' ')}: {what}")


def must(holds: object, what: object) -> None:
    if not holds:
        raise AssertionError(str(what))


# --- all the time -----------------------------------------------------------------------------------------------------


def the_chain_is_a_function_of_the_log(sim: Simulation, life: Life) -> None:
    """Whoever stands at a record of the log says of the group what a follower without secrets says there."""
    member = life.loop.member
    if member.cursor is not None:
        mine, said = of_chain(member.chain), sim.said(member.cursor.last)
        must(mine in said, f"another chain at {member.cursor.last.position}, epoch {member.chain and member.chain.epoch}")
    if member.mls is not None:
        must(member.chain is not None and member.mls.public.context == member.chain.public.context, "its keys are of another epoch")


def memory_never_precedes_the_store(sim: Simulation, life: Life) -> None:
    """What an agent acts on is what a crash now would leave it with, or was so before."""
    member = life.loop.member
    if member.cursor is None:
        return
    row = life.node.disk.rows.get((state.CURSOR, state.prefix(GROUP)))
    must(row is not None, "no cursor is stored")
    stored = state.decode_cursor(row or b"")
    must(member.cursor.last.position <= stored.last.position or member.cursor.log != stored.log, "its cursor is not stored")
    if member.chain is not None:
        must(state.encode_member(member) in life.node.ever, "its state was never stored")


def an_epoch_has_one_authenticator(sim: Simulation, life: Life) -> None:
    """Members of one epoch of one log have one epoch authenticator."""
    mls = life.loop.member.mls
    if mls is not None:
        known = sim.authenticators.setdefault(mls.public.context.encode(), mls.epoch_authenticator)
        must(known == mls.epoch_authenticator, f"two authenticators of epoch {mls.public.epoch}")


def nobody_barred_or_revoked_is_in(sim: Simulation, life: Life) -> None:
    """From the epoch on that bars an identity or revokes a key, until one that lifts it."""
    chain = life.loop.member.chain
    if chain is not None and (chain.policy.barred or chain.policy.revoked):
        for leaf, node in chain.public.tree.leaves():
            must(identity_of(node) not in chain.policy.barred, f"leaf {leaf} of epoch {chain.epoch} is barred")
            must(key_of(node) not in chain.policy.revoked, f"leaf {leaf} of epoch {chain.epoch} is revoked")


def each_epoch_is_held_missed_or_anothers(sim: Simulation, life: Life, view: GroupView) -> None:
    """A view says of each epoch exactly one thing, and seals in the newest."""
    member: Membership = life.loop.member
    if member.chain is None or member.halt == errors.UntrustedFounding.code:
        return
    held = {v.epoch for v in view.epochs.values()} | sim.erased(life)
    for epoch in range(member.chain.epoch + 1):
        missed = any(first <= epoch <= last for first, last in view.missed)
        absent = any(first <= epoch <= last for first, last in view.absent)
        must((epoch in held) + missed + absent == 1, f"epoch {epoch}: held {epoch in held}, missed {missed}, another's {absent}")
    must(view.current == member.chain.epoch, "the newest epoch is another")
    if view.sealing is not None:
        must(member.state == MEMBER and view.sealing.epoch == view.current, "it seals in an epoch that is over")
        must(view.sealing.roster.keys() == {leaf for leaf, _ in member.chain.public.tree.leaves()}, "another roster")


def nothing_is_sealed_in_an_epoch_that_the_log_does_not_show(sim: Simulation, node: Node, epoch: int, epoch_id: bytes) -> None:
    """A sender has read its own commit back before it seals."""
    if sim.log_is_sound:
        shown = sim.follower(node.broker).chain
        must(shown is not None and epoch <= shown.epoch, f"sealed in epoch {epoch}, the log shows {shown and shown.epoch}")
        known = sim.epoch_ids.setdefault(epoch, epoch_id)
        must(known == epoch_id, f"two ids of epoch {epoch}")


def no_key_and_nonce_twice(sim: Simulation) -> None:
    """Over all that was ever encrypted for a topic, by whoever, in whatever life."""
    must(not sim.ledger.twice, sim.ledger.twice[:3])


def a_sender_is_told_why(sim: Simulation, node: Node, life: Life, error: errors.BrokerCryptoError) -> None:
    """Sealing is refused by an error of the group's states, and the state is that one."""
    must(isinstance(error, errors.GroupError | errors.BrokerUnavailable | errors.StoreUnavailable), f"{type(error).__name__}: {error}")
    if isinstance(error, errors.MayNotWrite | errors.NotAMember):
        must(sim.may_be_refused(node), f"{node} is refused as {error.code}")
    halt = life.loop.member.halt
    if halt is not None and life.loop._loaded:
        must(error.code == halt or not isinstance(error, errors.GroupError), f"halted by {halt}, told {error.code}")


def a_record_opens_or_is_refused_by_name(
    sim: Simulation, node: Node, record: Published, result: Opened | RecordRefused | Behind, *, final: bool = False
) -> None:
    """What the docs allow, nothing else: whose key was in the epoch's tree opens it, nobody else does."""
    truth = record.truth
    was_member = sim.was_member(node, truth)
    if sim.log_is_sound and isinstance(result, Opened | RemovedSender):
        must(sim.fenced(node, record) == isinstance(result, RemovedSender), f"{node}, record {truth.number} behind a fence: {result!r}")
    if isinstance(result, Opened | RemovedSender) and not isinstance(result, Opened):
        return
    if isinstance(result, Opened):
        security = result.security
        must((result.payload, security.sender) == (truth.payload, truth.sender), "another payload or sender")
        must((security.leaf, security.epoch) == (truth.leaf, truth.epoch), "another leaf or epoch")
        must(was_member is not False, f"{node} opened a record of epoch {truth.epoch}, in which it was no member")
        return
    must(isinstance(result, RecordRefused), f"{type(result).__name__} though the log was read to its head")
    allowed = sim.allowed(node, record, was_member)
    must(isinstance(result, tuple(allowed)), f"{node}, record {truth.number} of {truth.label}, epoch {truth.epoch}: {result!r}")
    must(not (final and was_member and sim.is_clean(node) and not allowed), "refused to a member")


def a_duplicate_is_marked_and_nothing_else(sim: Simulation, reading: Reading, record: Published, opened: Opened) -> None:
    """A mark stands on what was seen at another position before."""
    name = opened.security.record_id or b""
    seen = reading.positions.setdefault(name, {record.place.position})
    must(opened.security.duplicate == (record.place.position not in seen), f"record {record.truth.number}")


def nobody_is_locked_out_without_cause(sim: Simulation, node: Node, event: object) -> None:
    """Only a lie, or a store that is not what it was, keeps a member from entering an epoch."""
    must(sim.lied or node.marks, f"{node}: {event}")


def halts_have_a_cause(sim: Simulation, node: Node, code: str) -> None:
    """Who stops says which trouble it was, and there was that trouble."""
    causes = {
        errors.LogRolledBack.code: not sim.log_is_sound,
        errors.GroupLogTruncated.code: not sim.log_is_sound,
        errors.IdentityInUse.code: bool({"copied", "evil"} & node.marks),
    }
    must(causes.get(code, False), f"{node} stopped with {code}")


def a_process_ends_only_when_told(sim: Simulation, life: Life) -> None:
    """Nothing that happens ends the following of a group or the application's tasks."""
    must(not life.faults(), [repr(fault) for fault in life.faults()])


def everything_comes_to_rest(sim: Simulation) -> None:
    """Once nothing fails any more, all that is wanted is done in the end."""
    for node in sim.living():
        must(not unfinished(node), f"{node}: {unfinished(node)}")


def unfinished(node: Node) -> str:
    """What a node has still to do."""
    loop = node.life.loop if node.life else None
    if loop is None or loop.member.halt is not None or (node.touched and node.sim.is_out(node)):
        return ""
    memory, member = loop.memory, loop.member
    open_intents = [intent.kind for intent in memory.intents.values() if intent.refused is None]
    late = node.commanded or memory.stale_intents
    words = [*open_intents, *(["a false external_pub"] if member.mend else []), *(["to look for intents"] if late else [])]
    return ", ".join(words)


# --- at rest ----------------------------------------------------------------------------------------------------------


def everybody_is_at_the_head_together(sim: Simulation) -> None:
    """One epoch and one authenticator for all that are shown one log, or a halt that has a cause."""
    for node in sim.living():
        member, follower = node.member, sim.follower(node.broker)
        if member.halt is not None:
            halts_have_a_cause(sim, node, member.halt)
            continue
        if member.state == LEFT:
            must(sim.is_out(node), f"{node} has left")
            continue
        must(member.state == MEMBER or sim.is_out(node), f"{node} is {member.state}")
        must(member.state != MEMBER or not sim.is_out(node), f"{node} is in, and should not be")
        must(of_chain(member.chain) == of_chain(follower.chain), f"{node} is not at the head")


def every_intent_is_settled_once(sim: Simulation) -> None:
    """Done, or refused by name; and in force at most once."""
    counted: dict[bytes, int] = {}
    for ended in sim.ended():
        for name in sim.ledger.commits.get(ended.commit.hash, ()):
            counted[name] = counted.get(name, 0) + 1
    for name, asked in sim.ledger.intents.items():
        times = counted.get(name, 0)
        must(times <= 1 or asked.excused or not sim.log_is_sound, f"an intent of {asked.node} is in force {times} times")
        if asked.gone:
            done = times or asked.refused or asked.excused or asked.node.marks or asked.node.has_left or so_already(sim, asked)
            must(done, f"an intent of {asked.node} is gone, and not done: {asked.kind}")
        elif sim.should_be_settled(asked.node):
            must(asked.refused, f"an intent of {asked.node} is open: {asked.kind}")


def so_already(sim: Simulation, asked: Asked) -> bool:
    """Whether what was asked was so in some epoch without a commit of its own, or is settled by a state."""
    if asked.kind not in (plan.REMOVE, plan.POLICY):
        return asked.kind in (plan.LEAVE, plan.JOIN)
    delta = Delta.decode(asked.delta)
    chains = sim.follower(asked.node.broker).epochs.values()
    return not sim.log_is_sound or any(delta.apply(chain.policy) is chain.policy for chain in chains)


def every_record_is_opened_by_who_was_a_member(sim: Simulation) -> None:
    """All records once more, from the first: by each reader as it is now."""
    for node in sim.living():
        life = node.life
        if life is None or life.loop.member.halt is not None:
            continue
        for topic, data in node.broker.data.items():
            reader = life.channels[topic].reader(whole=False)
            for record in data.records:
                (result,) = reader.open([(record.place, record.data, record.headers)], final=True)
                a_record_opens_or_is_refused_by_name(sim, node, record, result, final=True)


def a_removed_leaf_enters_nothing_behind_its_removal(sim: Simulation) -> None:
    """Whoever holds all that a leaf held up to the commit that removes it learns no secret of the epoch that follows."""
    for ended in sim.ended():
        staged = ended.commit.staged
        for leaf in staged.removed:
            for held in sim.secrets.get((ended.before.public.context.encode(), leaf), ()):
                must(not _opens(held, staged), f"leaf {leaf} learns a secret of epoch {ended.after.epoch}, which removes it")


def _opens(held: Group, staged: PublicStaged) -> bool:
    """Whether any key of a member opens any secret of a path, whomever it was sealed to."""
    context = staged.provisional.encode()
    for node in staged.path.nodes if staged.path else ():
        for sealed in node.encrypted_path_secret:
            for private in held.keys.values():
                try:
                    held.suite.decrypt_with_label(private, "UpdatePathNode", context, sealed.kem_output, sealed.ciphertext)
                except (AuthenticationFailed, MalformedInput):
                    continue
                return True
    return False


def one_of_two_copies_stops(sim: Simulation) -> None:
    """Two that run on one key are not both members at the end."""
    for original, copy in sim.copied:
        running = [node for node in (original, copy) if node.alive and node.member.halt is None and node.member.state == MEMBER]
        must(len(running) < 2 or original.broker is not copy.broker, f"{original} and {copy} both go on")


def a_newcomer_alone_gets_in(sim: Simulation, newcomer: Node) -> None:
    """With nobody else there, by the log alone."""
    must(newcomer.member.state == MEMBER, f"{newcomer} is {newcomer.member.state}, {newcomer.life and newcomer.life.loop.trouble}")
