"""The few lines that tell whoever started it where everything is."""

from importlib.metadata import PackageNotFoundError, version

from proxy.settings import Settings
from proxy.values import Address

_EVERYWHERE = {"", "0.0.0.0", "::"}  # noqa: S104 - read, not listened on


def release() -> str:
    """Return the version that is installed."""
    try:
        return version("openai-meter")
    except PackageNotFoundError:
        return "(not installed)"


def banner(
    settings: Settings, *, listen: Address, dashboard: Address, database: str, password: str | None
) -> str:
    """Return what is printed when everything is up; `password` only if it was made just now."""
    secure = settings.listen_tls_certificate is not None
    login = f"user {settings.admin_user}"
    if password is not None:
        login += f", password {password} (shown only now; kept as a hash)"
    else:
        login += (
            ", password as set or as shown at the first start; "
            f"delete {settings.data_dir / 'admin-password'} for a new one"
        )
    rows = (
        ("base URL", f"{_url(listen, secure=secure)}/v1"),
        ("upstream", settings.upstream_url),
        *((f"/{mount.name}", mount.url) for mount in settings.upstreams.upstreams),
        ("dashboard", f"{_url(dashboard, secure=False)}/admin   {login}"),
        ("database", database),
        ("data", str(settings.data_dir)),
    )
    lines = (f"  {name:<10} {value}" for name, value in rows)
    return "\n".join((f"openai-meter {release()}", *lines, ""))


def _url(address: Address, *, secure: bool) -> str:
    host = "localhost" if address.host in _EVERYWHERE else address.host
    return f"{'https' if secure else 'http'}://{Address(host, address.port)}"
