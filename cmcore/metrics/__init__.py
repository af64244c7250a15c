"""How far generated samples are from real ones, and whether they are copies of training data.

`frechet_distance`, `kid`, `precision_recall`, `density_coverage`, `memorization`, `class_deviation`, `sliced_wasserstein`.

Samples are arrays (N, ...) of any framework, pixels or features, flattened to N vectors of d numbers and compared on the host in
float64, block by block: beside the samples themselves, which may be a memory-mapped file, no more memory is taken for more of them.
None of these metrics knows about images: a distance between pixels is a distance in pixel space and must not be compared with
published ones, which are between the features of a particular network (`cmcore.features`).
"""

from cmcore.metrics.classes import class_deviation as class_deviation
from cmcore.metrics.frechet import (
    Moments as Moments,
)
from cmcore.metrics.frechet import (
    Statistics as Statistics,
)
from cmcore.metrics.frechet import (
    frechet_distance as frechet_distance,
)
from cmcore.metrics.frechet import (
    frechet_distance_from_statistics as frechet_distance_from_statistics,
)
from cmcore.metrics.frechet import (
    statistics as statistics,
)
from cmcore.metrics.kernel import KID as KID
from cmcore.metrics.kernel import kid as kid
from cmcore.metrics.kernel import kid_of_subsets as kid_of_subsets
from cmcore.metrics.neighbours import (
    DensityCoverage as DensityCoverage,
)
from cmcore.metrics.neighbours import (
    PrecisionRecall as PrecisionRecall,
)
from cmcore.metrics.neighbours import (
    density_coverage as density_coverage,
)
from cmcore.metrics.neighbours import (
    memorization as memorization,
)
from cmcore.metrics.neighbours import (
    precision_recall as precision_recall,
)
from cmcore.metrics.sliced import sliced_wasserstein as sliced_wasserstein
