"""What an extent can be split into."""

import math
from functools import lru_cache


@lru_cache(maxsize=4096)
def divisors(value: int) -> tuple[int, ...]:
    """All divisors, ascending."""
    small = [divisor for divisor in range(1, math.isqrt(value) + 1) if value % divisor == 0]
    return (*small, *(value // divisor for divisor in reversed(small) if divisor * divisor != value))


@lru_cache(maxsize=4096)
def prime_factors(value: int) -> tuple[int, ...]:
    """Prime factors, ascending; trial division, as extents are small."""
    primes, divisor = [], 2
    while divisor * divisor <= value:
        while value % divisor == 0:
            primes.append(divisor)
            value //= divisor
        divisor += 1
    return (*primes, value) if value > 1 else tuple(primes)
