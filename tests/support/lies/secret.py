"""Commits that everybody must count, and that members cannot enter or should not trust: only secrets show what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from broker_crypto.delivery.committer import Staged
from broker_crypto.mls import tree_math, treekem
from broker_crypto.mls.group import Group
from broker_crypto.mls.ratchet_tree import RatchetTree
from broker_crypto.mls.treekem import NewPath
from broker_crypto.mls.update_path import HPKECiphertext, UpdatePath
from broker_crypto.records import Random
from tests.support.lies.scene import Scene
from tests.support.lies.scribe import Scribe, Written
from tests.support.lies.switches import Switches

SECRET: Switches[Scene] = Switches()
LIES = ("membership_tag", "confirmation_tag", "path_secret", "external_pub")  # what anybody's commit can hold, at any time


def flipped(data: bytes) -> bytes:
    return data[:-1] + bytes((data[-1] ^ 1,))


def lie(scribe: Scribe, what: str, *, victim: int | None = None) -> Written:
    """A path commit of a member with one lie in it. `victim` is the leaf whose path secret is garbled (None: everybody's)."""
    bends: dict[str, Callable[[], dict[str, Any]]] = {
        "": dict,
        "membership_tag": lambda: {"membership_tag": flipped},
        "confirmation_tag": lambda: {"confirmation_tag": flipped},
        "path_secret": lambda: {"path": _garbled(scribe, victim)},
        "path_length": lambda: {"secrets": _longer},
        "path_key": lambda: {"secrets": lambda new: replace(new, secrets={n: flipped(s) for n, s in new.secrets.items()})},
        "external_pub": lambda: {"external_pub": lambda _: scribe.public.suite.derive_key_pair(scribe.random(scribe.public.suite.nh))[1]},
    }
    return scribe.write(**bends[what]())


def wrong_commit(group: Group, time_ms: int, what: str, random: Random, *, victim: int | None = None) -> Staged:
    """The same with the state that its maker would be in, as a loop stores it."""
    return lie(Scribe.member(group, random, time_ms=time_ms), what, victim=victim).staged


def _longer(new: NewPath) -> NewPath:
    return replace(new, secrets={number: secret + b"\x00" for number, secret in new.secrets.items()})


def _garbled(scribe: Scribe, victim: int | None) -> Callable[[UpdatePath], UpdatePath]:
    """Change the ciphertext that the leaf `victim` would open, or all."""
    assert scribe.group is not None
    tree, index = scribe.public.tree, scribe.group.leaf

    def garble(path: UpdatePath) -> UpdatePath:
        nodes = []
        for (_, off_path), node in zip(tree.filtered_direct_path(index), path.nodes, strict=True):
            targets = treekem.receivers(tree, off_path, frozenset())
            sealed = [_if_for(tree, victim, *one) for one in zip(targets, node.encrypted_path_secret, strict=True)]
            nodes.append(replace(node, encrypted_path_secret=tuple(sealed)))
        return replace(path, nodes=tuple(nodes))

    return garble


def _if_for(tree: RatchetTree, victim: int | None, target: int, sealed: HPKECiphertext) -> HPKECiphertext:
    hit = victim is None or tree_math.is_below(2 * victim, target)
    return replace(sealed, ciphertext=flipped(sealed.ciphertext)) if hit and tree.node(target) is not None else sealed


def _told(name: str, reason: str, what: str, *, rule: str | None = None, victim: int | None = None) -> None:
    SECRET.breaks(reason, kind="commit", rule=rule, name=name)(lambda scene: lie(scene.member("writer-1"), what, victim=victim).record)


_told("a_wrong_membership_tag", "membership_tag", "membership_tag")
_told("a_wrong_confirmation_tag", "confirmation_tag", "confirmation_tag")
_told("a_path_secret_that_nobody_can_open", "path_secret", "path_secret")
_told("a_path_secret_that_one_member_cannot_open", "path_secret", "path_secret", victim=0)
_told("a_path_secret_of_another_length", "path_secret", "path_length")
_told("a_path_secret_that_leads_to_other_keys", "path_key", "path_key")
_told("an_external_pub_that_nobody_has_the_key_of", "", "external_pub", rule="external_pub")


@SECRET.breaks("confirmation_tag", kind="commit", rule="external_init")
def an_external_init_for_another_key(scene: Scene) -> bytes:
    suite = scene.chain.public.suite
    false = suite.derive_key_pair(scene.world.random(suite.nh))[1]
    return replace(scene.outside(), external_pub=false).write().record
