"""The errors a user can meet, each with the exit code that `myriad` ends with.

| code | error | meaning |
|---|---|---|
| 2 | (click) | the command line itself is wrong |
| 3 | `InputError` | an input file, variable, time or unit is not what it must be |
| 4 | `ConfigurationError` | the experiment file is wrong |
| 5 | `CheckpointError` | a checkpoint is missing, damaged or does not fit |
| 6 | `StoreError` | the store is of another experiment, damaged, or cannot be written |
| 7 | `RunError` | units of work failed; what was finished is kept |
| 8 | `MissingExtraError` | an optional dependency is needed; the message names the extra |
| 9 | `DegradedError` | some members are lost; at least `min_members` of each init time are whole |
| 130, 143 | | stopped by Ctrl-C (SIGINT) or SIGTERM; the message says what is kept |
"""


class MyriadError(Exception):
    """Base of all errors meant for a user: one message, one exit code."""

    exit_code = 1


class InputError(MyriadError):
    """An input is not what it must be; the message names file, variable, time and values."""

    exit_code = 3


class ConfigurationError(MyriadError):
    """An experiment file is wrong; the message names the key."""

    exit_code = 4


class CheckpointError(MyriadError):
    """A checkpoint is missing, damaged, or does not fit the analyses."""

    exit_code = 5


class StoreError(MyriadError):
    """A store belongs to another experiment, is damaged, or cannot be written."""

    exit_code = 6


class RunError(MyriadError):
    """Units of work failed; what was finished is kept and a rerun does the rest."""

    exit_code = 7


class MissingExtraError(MyriadError):
    """An optional dependency is not installed; the message names the extra that brings it."""

    exit_code = 8


class DegradedError(MyriadError):
    """Some members are lost, and enough are whole; said at the very end, when all is done."""

    exit_code = 9
