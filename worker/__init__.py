"""One process, one network, one queue."""

from __future__ import annotations

import os

# The decoder's threads and the network's share the cores. By default OpenMP's threads spin while they wait for each
# other, which takes the cores from the decoder: on two cores that cost three times the whole run. Read by OpenMP when
# torch is loaded, so it stands where nothing can come before it.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
