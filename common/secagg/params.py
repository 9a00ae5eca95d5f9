"""What a study fixes about its secure sums; what can't be safe is refused with the arithmetic.

With `n` institutions on the roster, `h` of them colluding with the coordinator, threshold `t`:

| adversary     | rule                   | because                                                |
|---------------|------------------------|--------------------------------------------------------|
| both          | 1 <= h                 | every institution sees the sums                        |
| both          | cohort - h >= 2        | the sum less the colluders' part covers two or more    |
| `malicious`   | 2 t > n + h            | two views that are both opened share an honest party   |
| `malicious`   | t - h >= 2             | no opened view holds a single honest party             |
| `semi_honest` | 2 t > n, t > h         | the colluders' shares alone open nothing               |
| both          | n (2^(v-1) - 1) < 2^(k-1) | the sum can't wrap                                  |

Two views: to get both secrets of one institution takes `t` shares of each. The colluders give both,
each honest party one; so `2 (t - h)` honest ones are needed, and there are `n - h`.

`t` counts against the roster, never against whom the coordinator lists.

With a `degree` each institution deals shares to its neighbours only, and `neighbour_threshold` of
them open a secret; see `common.secagg.graph` for what that takes.
"""

from dataclasses import dataclass
from typing import Final, Literal, get_args

from common.errors import ConfigError
from common.secagg.graph import FAILURE_BITS, GRINDING_BITS, privacy_failure_log2
from common.secagg.quantise import require_no_wrap

Adversary = Literal["malicious", "semi_honest"]
ADVERSARIES: Final = get_args(Adversary)
MAX_INSTITUTIONS: Final = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """The public constants of a study's secure sums.

    Attributes:
        institutions: names in roster order.
        threshold: `t`, fewest institutions that must stay to the end.
        collusion: `h`, most institutions that side with the coordinator.
        adversary: what the coordinator may do; `semi_honest` leaves the consistency stage out.
        min_cohort: fewest institutions in a sum; a site may ask for more.
        value_bits: `v`, bits of one quantised value.
        bits: `k`, bits of the modulus.
        degree: neighbours of each institution, even; `None` makes all neighbours.
        neighbour_threshold: shares that open a secret, given with `degree` and only then.

    Raises:
        ConfigError: an impossible or unsafe combination.
    """

    institutions: tuple[str, ...]
    threshold: int
    collusion: int
    adversary: Adversary
    min_cohort: int
    value_bits: int
    bits: int
    degree: int | None = None
    neighbour_threshold: int | None = None

    def __post_init__(self) -> None:
        self._require_roster()
        self._require_threshold()
        self._require_cohort()
        require_no_wrap(self.bits, self.value_bits, len(self.institutions))
        self._require_degree()

    @property
    def n(self) -> int:
        """Institutions on the roster."""
        return len(self.institutions)

    @property
    def share_threshold(self) -> int:
        """Shares that open one institution's secret."""
        return self.threshold if self.neighbour_threshold is None else self.neighbour_threshold

    def _require_roster(self) -> None:
        names = self.institutions
        if not isinstance(names, tuple) or len(set(names)) != len(names) or "" in names:
            raise ConfigError("institutions of a secure sum are distinct names, in a tuple")
        if not 3 <= len(names) <= MAX_INSTITUTIONS:
            raise ConfigError(
                f"a secure sum of {len(names)} institutions, expected 3 to {MAX_INSTITUTIONS}",
                remedy="with fewer than three, one colluder learns the other's values from the sum",
            )

    def _require_threshold(self) -> None:
        n, t, h = self.n, self.threshold, self.collusion
        if any(type(number) is not int for number in (t, h, self.min_cohort)):
            raise ConfigError("threshold, collusion and cohort are whole numbers")
        if self.adversary not in ADVERSARIES:
            raise ConfigError(f"adversary {self.adversary!r}, expected {' or '.join(ADVERSARIES)}")
        if not 1 <= h < n:
            raise ConfigError(f"collusion h = {h}, expected 1 to {n - 1}: institutions see the sum")
        if not t <= n:
            raise ConfigError(f"threshold t = {t}, of n = {n} institutions")
        if self.adversary == "malicious":
            self._require_malicious(n, t, h)
        else:
            self._require_semi_honest(n, t, h)

    def _require_malicious(self, n: int, t: int, h: int) -> None:
        least = smallest_threshold(n, h, "malicious")
        remedy = _remedy(n, h, least)
        if not 2 * t > n + h:
            raise ConfigError(
                f"2 t > n + h does not hold: 2 * {t} = {2 * t}, {n} + {h} = {n + h}; two groups "
                "could open the same institution's two secrets",
                remedy=remedy,
            )
        if not t - h >= 2:
            raise ConfigError(
                f"t - h >= 2 does not hold: {t} - {h} = {t - h}; a sum could hold one honest "
                "institution alone",
                remedy=remedy,
            )

    def _require_semi_honest(self, n: int, t: int, h: int) -> None:
        remedy = _remedy(n, h, smallest_threshold(n, h, "semi_honest"))
        if not 2 * t > n:
            raise ConfigError(f"2 t > n does not hold: 2 * {t} = {2 * t}, n = {n}", remedy=remedy)
        if not t > h:
            raise ConfigError(f"t > h does not hold: {t}, {h}", remedy=remedy)

    def _require_cohort(self) -> None:
        n, t, h, cohort = self.n, self.threshold, self.collusion, self.min_cohort
        if not t <= cohort <= n:
            raise ConfigError(f"min_cohort {cohort}, expected t = {t} to n = {n}")
        if not cohort - h >= 2:
            raise ConfigError(
                f"min_cohort - h >= 2 does not hold: {cohort} - {h} = {cohort - h}",
                remedy=f"min_cohort of {h + 2} or more, or a smaller collusion",
            )

    def _require_degree(self) -> None:
        degree, least = self.degree, self.neighbour_threshold
        if (degree is None) != (least is None):
            raise ConfigError("give neighbour_threshold exactly with degree")
        if degree is None or least is None:
            return
        if type(degree) is not int or type(least) is not int or degree < 2 or degree % 2:
            raise ConfigError(f"degree {degree!r}, expected an even number of 2 or more")
        if not degree < self.threshold - 1:
            raise ConfigError(
                f"degree {degree} with a threshold of {self.threshold}: a cohort of that size has "
                f"{self.threshold - 1} neighbours each",
                remedy="leave degree and neighbour_threshold out: all are neighbours then",
            )
        if not degree // 2 + 2 <= least <= degree + 1:
            raise ConfigError(
                f"neighbour_threshold {least}, expected degree / 2 + 2 = {degree // 2 + 2} to "
                f"degree + 1 = {degree + 1}",
                remedy="take both numbers from common.secagg.graph.choose_degree",
            )
        failure = privacy_failure_log2(self.threshold, self.collusion, degree, least)
        if not failure <= -FAILURE_BITS - GRINDING_BITS:
            raise ConfigError(
                f"degree {degree} and neighbour_threshold {least} fail with 2^{failure:.0f} at "
                f"h = {self.collusion} of {self.threshold}, expected 2^-{FAILURE_BITS} after "
                f"2^{GRINDING_BITS} attempts",
                remedy="take both numbers from common.secagg.graph.choose_degree",
            )


def default_collusion(n: int) -> int:
    """`(n - 1) // 2`: fewer than half; a study may assume more, at the price of a higher `t`."""
    return (n - 1) // 2


def smallest_threshold(n: int, h: int, adversary: Adversary = "malicious") -> int:
    """The smallest `t` that the rules allow, which may be more than `n`."""
    if adversary == "malicious":
        return max((n + h) // 2 + 1, h + 2)
    return max(n // 2 + 1, h + 1)


def _remedy(n: int, h: int, least: int) -> str:
    if least <= n:
        return f"a threshold of {least} or more"
    return f"no threshold of up to {n} will do with h = {h}: assume fewer colluders"
