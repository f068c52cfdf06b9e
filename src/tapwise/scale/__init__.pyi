from .exchange import RankError as RankError
from .lazy_arrays import map_array as map_array
from .out_of_core import Applied as Applied
from .out_of_core import apply as apply
from .sequence_parallel import gather as gather
from .sequence_parallel import parallelize as parallelize
from .sequence_parallel import shard as shard
