from .lazy_arrays import map_array as map_array
from .out_of_core import Applied as Applied
from .out_of_core import apply as apply
