"""How often each client may ask: checked as soon as it is known who asks, before anything is read or done."""

from aipaging.adapters.northbound.credentials import Authenticator, Caller
from aipaging.runtime.http.rates import CallerRates


class LimitedAuthenticator:
    """An `Authenticator` that lets each client through as often as it may ask.

    Operators are not limited: they must reach the controller when it matters most.
    """

    def __init__(self, authenticator: Authenticator, rates: CallerRates) -> None:
        self._authenticator = authenticator
        self._rates = rates

    async def caller(self, authorization: str, address: str = "") -> Caller:
        """See `Authenticator.caller`.

        Raises:
            RefusedError: The client asks too often (`TOO_MANY_REQUESTS`).
        """
        caller = await self._authenticator.caller(authorization, address)
        if not caller.operator:
            self._rates.take(caller.client)
        return caller
