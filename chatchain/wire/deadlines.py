"""How long either side of a conversation waits, in seconds."""

from typing import Final

HANDSHAKE: Final = 5.0
"""For TCP and TLS, and again for the relay's challenge."""

LOGIN: Final = 10.0
"""That a stranger may stay connected without having logged in."""

SPONSORED: Final = 60.0
"""The same for one whose registration was just paid for: the chain has to mine it first."""

HEARTBEAT: Final = 15.0
"""Of silence after which a side asks whether the other is alive."""

SILENCE: Final = 40.0
"""Without a byte after which the other side counts as gone."""
