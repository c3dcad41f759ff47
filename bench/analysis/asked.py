"""What recommendations are asked for where nobody says."""

from __future__ import annotations

# What a card should have to spare. A desktop that shows a screen takes some hundred MB, as does a browser beside it;
# and kernels that CUDA loads late, and blocks too small for the next request, take some tens more.
DEFAULT_HEADROOM_BYTES = 512 << 20
DEFAULT_CONTEXTS = (8192, 32768, 131072)
