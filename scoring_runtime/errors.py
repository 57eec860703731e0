"""Every error of the server, in one tree.

ScoringRuntimeError
├── StartError                  the server cannot start: the process ends with `exit_code`
│   ├── UsageError              1  the command line is wrong
│   ├── ConfigurationError      3  an environment variable or the configuration file is wrong
│   ├── AddressError            1  the port cannot be had
│   ├── TargetError             3  what is to be served cannot be served
│   ├── ScorerStartError        3  the scorer could not load it; carries the user's traceback
│   └── TuneError               1  tune found no settings; carries what it measured
└── RequestError                one request fails: the client gets `status` and {"message": ...}
    ├── BadRequest              400
    ├── Unauthorized            401
    ├── NotFound                404
    ├── MethodNotAllowed        405
    ├── RequestTimeout          408
    ├── BodyTooLarge            413
    ├── TargetTooLong           414
    ├── ExpectationFailed       417
    ├── HeadTooLarge            431
    ├── InternalError           500
    ├── ScorerLost              500
    ├── ScoringTimeout          500
    ├── CodingNotImplemented    501
    ├── Overloaded              503  carries `retry_after_s`
    ├── DeadlineExceeded        504
    └── VersionNotSupported     505
"""


class ScoringRuntimeError(Exception):
    """Anything that this server says is wrong. The text names the cause and the cure."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class StartError(ScoringRuntimeError):
    """The server cannot start."""

    exit_code = 3


class UsageError(StartError):
    """The command line is wrong."""

    exit_code = 1


class ConfigurationError(StartError):
    """An environment variable or the configuration file holds something that cannot be used."""

    def __init__(self, message: str, exit_code: int = 3) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class AddressError(StartError):
    """The server cannot listen where it was told to."""

    exit_code = 1


class TargetError(StartError):
    """What is to be served is missing or of no known kind."""


class ScorerStartError(StartError):
    """A scorer could not load what it is to serve. `traceback` is the user's, or empty."""

    def __init__(self, message: str, traceback: str = "") -> None:
        super().__init__(message)
        self.traceback = traceback

    def report(self) -> str:
        """The whole text for a person: the message, then the traceback."""
        return f"{self.message}\n\n{self.traceback.rstrip()}" if self.traceback else self.message


class TuneError(StartError):
    """Tuning found no settings that do what was asked. `measured` is what it has seen, for stdout, or empty."""

    exit_code = 1

    def __init__(self, message: str, measured: str = "") -> None:
        super().__init__(message)
        self.measured = measured


class RequestError(ScoringRuntimeError):
    """One request cannot be answered as it was asked. `setting` names the one that sets the limit which was met, if any."""

    status = 500
    run_failed = False  # the user's run() was at work

    def __init__(self, message: str, setting: str = "") -> None:
        super().__init__(message)
        self.setting = setting


class BadRequest(RequestError):
    """The bytes are no HTTP request, or contradict themselves."""

    status = 400


class Unauthorized(RequestError):
    """The request carries no key that this server knows."""

    status = 401


class NotFound(RequestError):
    """No such route."""

    status = 404


class MethodNotAllowed(RequestError):
    """The route exists, not for this method. `allow` is the list of those that it has."""

    status = 405

    def __init__(self, allow: str, message: str = "The method is not allowed for the requested URL.") -> None:
        super().__init__(message)
        self.allow = allow


class RequestTimeout(RequestError):
    """The request did not arrive in time."""

    status = 408


class BodyTooLarge(RequestError):
    """The body is over the limit."""

    status = 413


class TargetTooLong(RequestError):
    """The request target is over the limit."""

    status = 414


class ExpectationFailed(RequestError):
    """The client expects what this server does not do."""

    status = 417


class HeadTooLarge(RequestError):
    """The header fields are over the limit, in number or in bytes."""

    status = 431


class InternalError(RequestError):
    """The server itself is at fault."""

    status = 500


class ScorerLost(RequestError):
    """The scorer ended while the request may have been running."""

    status = 500
    run_failed = True


class ScoringTimeout(RequestError):
    """run() took longer than it may."""

    status = 500
    run_failed = True

    def __init__(self, timeout_ms: int) -> None:
        super().__init__(f"Scoring timeout after {timeout_ms} ms", "scoring_timeout_ms")


class CodingNotImplemented(RequestError):
    """A transfer coding other than chunked."""

    status = 501


class Overloaded(RequestError):
    """The request was not admitted, or waited too long. Nothing of it has run."""

    status = 503

    def __init__(self, message: str, retry_after_s: int, setting: str = "") -> None:
        super().__init__(message, setting)
        self.retry_after_s = retry_after_s


class DeadlineExceeded(RequestError):
    """The request's own deadline passed. It may have run in vain, or not at all."""

    status = 504

    def __init__(self) -> None:
        super().__init__("The deadline of the request passed before it was answered.")


class VersionNotSupported(RequestError):
    """Neither HTTP/1.0 nor HTTP/1.1."""

    status = 505
