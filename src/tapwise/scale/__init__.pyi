from .apply import Applied as Applied
from .apply import apply as apply
