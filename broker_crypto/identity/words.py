"""Fingerprints that people compare: hex in groups of four, and words for the telephone.

A word stands for a byte; twelve of them are the first 96 bits of a SHA-256. The list is sorted, no two words share their
first four letters.
"""

from __future__ import annotations

import hmac
from typing import Final

from broker_crypto.errors import UsageError

WORDS: Final = tuple(
    """
    acorn acrobat adapter agent airport album almond alpine amber anchor antler apple apricot apron arcade arctic
    armor arrow atlas autumn avocado badge bagel bakery balloon bamboo banana banjo barley basket beacon beaver
    beetle bicycle biscuit bishop blanket blossom bonfire border bottle bracket breeze bridge broom bubble bucket
    butter cabin cactus camel candle canoe canyon captain caramel carpet castle cedar cellar cement chalk
    cherry chimney cider cinema circle citrus clarinet cliff clover cobalt coconut coffee compass copper coral cotton
    cricket crystal cupboard curtain cushion dagger dancer delta denim desert diamond diesel dinner dolphin domino
    donkey dragon drawer drum eagle easel echo elbow elephant ember emerald engine envelope fabric falcon farmer
    feather fence ferry fiddle finger flamingo flute forest fossil fountain fox galaxy garden garlic gazelle geyser
    ginger giraffe glacier globe goblet gondola granite gravel guitar hammer harbor harvest hazel helmet heron
    hickory hockey honey horizon hornet hotel husky iceberg igloo indigo insect iris island ivory jacket jaguar
    jasmine jelly jigsaw journal jungle juniper kayak kernel kettle kitchen kiwi ladder lagoon lantern laptop
    lemon leopard lettuce lilac linen lizard lobster locket lumber machine magnet mango maple marble meadow
    melon mercury meteor mirror monkey mosaic mustard napkin needle nickel noodle nutmeg oasis oatmeal ocean
    octopus olive onion opal orbit orchid otter oven oxygen oyster paddle palace panda papaya parrot pebble pelican
    pepper piano pickle pigeon pillow pirate planet plaza pocket pony poppy prism puzzle quartz quilt rabbit radar
    raven ribbon river rocket saddle salmon sandal shovel silver spider sugar tablet tiger tulip turtle velvet violin
    walnut window yogurt zebra
    """.split()  # noqa: SIM905 (256 words as a list of literals are nobody's reading)
)
SPOKEN: Final = 12  # words of a fingerprint; a key with the same ones takes 2^96 tries


def hex_groups(digest: bytes) -> str:
    """Hex in groups of four digits."""
    text = digest.hex()
    return " ".join(text[at : at + 4] for at in range(0, len(text), 4))


def spoken(digest: bytes) -> str:
    """The words of the first SPOKEN bytes."""
    return " ".join(WORDS[byte] for byte in digest[:SPOKEN])


def matches(given: str, digest: bytes) -> bool:
    """True if `given` is the digest in hex (groups, colons or one run), or its words. Raises UsageError if it is neither."""
    parts = given.lower().replace(":", " ").replace("-", " ").split()
    if len(parts) == SPOKEN and all(part in WORDS for part in parts):
        return hmac.compare_digest(bytes(map(WORDS.index, parts)), digest[:SPOKEN])
    try:
        return hmac.compare_digest(bytes.fromhex("".join(parts)), digest)
    except ValueError:
        raise UsageError(f"a fingerprint is {2 * len(digest)} hex digits or {SPOKEN} words") from None
