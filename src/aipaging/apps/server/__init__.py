"""The controller: engine, listeners, gateway, composed from one configuration file."""
