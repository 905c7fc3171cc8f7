"""Names of Optuna's samplers that can search; here, so that a name is checked without loading Optuna."""

from tunewright.core.errors import ConfigError

SAMPLERS = ("tpe", "cmaes", "random")


def check_sampler(name: str) -> None:
    """Raises: ConfigError: `name` is unknown."""
    if name not in SAMPLERS:
        raise ConfigError(f"sampler {name!r} is unknown; choose one of: {', '.join(SAMPLERS)}")
