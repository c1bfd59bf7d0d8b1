"""Where the lies of an insider were before: tests.support.lies.secret."""

from tests.support.lies.secret import LIES, flipped, wrong_commit

__all__ = ["LIES", "flipped", "wrong_commit"]
