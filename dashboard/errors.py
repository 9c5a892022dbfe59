"""Every exception of the dashboard, in one tree; the docstring is the default message."""


class DashboardError(Exception):
    """Something in the dashboard went wrong."""

    def __init__(self, message: str | None = None) -> None:
        super().__init__(message or (type(self).__doc__ or "").strip())


class ConfigurationError(DashboardError):
    """A setting cannot be used."""


class DatabaseUnavailableError(DashboardError):
    """The database does not answer; calls are metered all the same and will be seen later.

    `cause` is for the log: what the library said, which may name hosts and users.
    """

    def __init__(self, message: str | None = None, *, cause: str = "") -> None:
        super().__init__(message or (type(self).__doc__ or "").partition("\n")[0])
        self.cause = cause


class TooBusyError(DatabaseUnavailableError):
    """Others are asking the ledger for as much as it can give; try again in a minute."""


class TooManyListenersError(DashboardError):
    """Too many pages are open: this one does not follow the ledger by itself."""


class TooManyAttemptsError(DashboardError):
    """Too many failed log-ins from this address; try again in a minute.

    `is_first`: nobody there has been told so yet, in this minute.
    """

    def __init__(self, *, is_first: bool = False) -> None:
        super().__init__((type(self).__doc__ or "").partition("\n")[0])
        self.is_first = is_first


class SignOnError(DashboardError):
    """The provider of log-ins has not said who this is."""


class ParameterError(DashboardError):
    """A parameter of the request cannot be used; `parameter` names it."""

    def __init__(self, parameter: str, message: str) -> None:
        super().__init__(f"{parameter}: {message}")
        self.parameter = parameter


class ForbiddenError(DashboardError):
    """This account may not do that; ask whoever runs the meter for another role."""


class MigrationError(DashboardError):
    """The schema could not be brought up to date."""


class NotFoundError(DashboardError):
    """There is nothing of that name."""


class TooSlowError(DashboardError):
    """The question takes too long to answer; ask for fewer days, or export the calls."""
