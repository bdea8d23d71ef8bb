"""Errors that a user can mend. Each message names the thing that is wrong and the remedy."""


class CollapseBenchError(Exception):
    """Base of every error that is the user's to mend; the command line prints it without a traceback."""


class ConfigError(CollapseBenchError):
    """An option is misspelt, of the wrong type, out of range, or makes no sense with another one."""


class CombinationError(ConfigError):
    """Options that are each in range make no sense together; raised before anything is trained."""


class DataError(CollapseBenchError):
    """A data set is missing, damaged, of the wrong shape, or cannot be downloaded."""


class RunDirError(CollapseBenchError):
    """A run directory belongs to another configuration, is damaged, or cannot be written."""


class RunBusyError(RunDirError):
    """Another process is running the same run."""


class SweepError(CollapseBenchError):
    """Runs of a sweep did not finish."""


class TrainingError(CollapseBenchError):
    """Training went wrong, for example the loss became NaN."""


class SelectionError(CollapseBenchError):
    """A curator or regime cannot deliver what was asked of it."""


class HiddenColumnError(CollapseBenchError):
    """A part looked at a column of a pool that the scenario declares lost."""


class MetricError(CollapseBenchError):
    """A metric was given features that it cannot score, for example NaN."""


class DivergenceError(CollapseBenchError):
    """Processes that run one chain together do not agree about what comes next."""


def in_one_line(error: object) -> str:
    """What an error says, without its line breaks."""
    return " ".join(str(error).split())
