"""Starts the commands of the project as their users do."""

import json
import os
import signal
import subprocess
import sys

import pytest


class RunningServer:
    def __init__(self, process, announcement):
        self.process = process
        self.announcement = announcement
        self.url = announcement["listening"]

    def stop(self):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


@pytest.fixture(scope="module")
def start_command():
    """Return a function that starts a click command (`module:attribute`) with `--listen 127.0.0.1:0 --json`."""
    running = []

    def start(target, *arguments):
        module, _, attribute = target.partition(":")
        code = f"from {module} import {attribute} as c; c()"
        process = subprocess.Popen(
            [sys.executable, "-c", code, "--listen", "127.0.0.1:0", "--json", *arguments],
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONWARNINGS": "error::DeprecationWarning:aipaging"},
        )
        line = process.stdout.readline()
        assert line, "the server ended before it listened"
        server = RunningServer(process, json.loads(line))
        running.append(server)
        return server

    yield start
    for server in running:
        server.stop()
        server.process.stdout.close()
