"""The sections about tenants and policies: the most that each may hold, and who may go where."""

from typing import Final

from aipaging.apps.server.config_fields import Field, Kind, Section, boolean, choice, integer, name, number
from aipaging.core.identity.tenant import PERIOD_S_MAX

RATE_RPS_MAX: Final = 1e9
"""As of a whole domain."""


def policies(path: Kind) -> Section:
    """Return the section that names the file of policies."""
    return Section(
        name="policies",
        about="Who may page, relocate and extend where, in Cedar (extra `policy`).",
        fields={
            "file": Field(
                kind=path,
                about="The policies; read again when the file changes. Without one, everything is allowed.",
            )
        },
    )


TENANT: Final = Section(
    name="tenant",
    about="The most that a tenant may hold; one that is not described is limited by capacity alone. 0 is no limit.",
    many=True,
    fields={
        "name": Field(kind=name(), required=True, about="Its name, as clients have it."),
        "sessions_max": Field(kind=integer(0, 10**9), default=0, about="Sessions at one time."),
        "requests_rps_max": Field(
            kind=number(0, RATE_RPS_MAX), default=0.0, about="Requests per second of all its sessions."
        ),
        "reserved_rps_max": Field(
            kind=number(0, RATE_RPS_MAX),
            default=0.0,
            about="Likewise, with what ended sessions hold until it is released.",
        ),
        "spend_max": Field(
            kind=integer(0, 10**15), default=0, about="Spend in a period, in millionths of the catalogue's currency."
        ),
        "period_s": Field(kind=integer(1, PERIOD_S_MAX), default=86_400, about="How long a period is."),
        "priority": Field(
            kind=choice("background", "standard", "urgent", "emergency"),
            default="standard",
            about="The class of its sessions.",
        ),
        "preempts": Field(
            kind=boolean(),
            default=False,
            about="Whether its pages displace sessions of a lower class where there is no room.",
        ),
    },
)
