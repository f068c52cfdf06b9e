"""Past memory and past one machine: recordings by parts, on threads or a cluster.

The public names load at first use.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
