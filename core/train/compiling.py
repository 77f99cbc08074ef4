"""Stub by the lead; helper MODEL replaces it."""
import contextlib

def compile_network(network):
    network.compile()

def fall_back(network):
    network._compiled_call_impl = None

@contextlib.contextmanager
def eager(network):
    old = network._compiled_call_impl
    network._compiled_call_impl = None
    try:
        yield
    finally:
        network._compiled_call_impl = old
