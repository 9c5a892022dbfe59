"""A demonstration: invented traffic through the real proxy, without a key and without a network.

Nothing outside of this package knows it but the command line. The past that it shows is made here
alone: a worker that is told another time of day. No setting can do that to a real ledger.
"""
