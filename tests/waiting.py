"""Servers of our own: ports for them, and waiting until something has come about."""

import socket
import time

import requests


def free_ports(number):
    """Ports that nobody listens at. Held together, so that they differ."""
    listeners = [socket.socket() for _ in range(number)]
    for listener in listeners:
        listener.bind(("127.0.0.1", 0))
    ports = [listener.getsockname()[1] for listener in listeners]
    for listener in listeners:
        listener.close()
    return ports


def answers(url):
    """Whether a server answers there, and well."""
    try:
        return requests.get(url, timeout=5).ok
    except requests.ConnectionError:
        return False


def until(condition, what, seconds=120):
    """Waits for a condition; fails by name when it does not come."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds} s in vain until {what}")
