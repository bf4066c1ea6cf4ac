"""The OCI distribution protocol, reading half: one file a concern.

    transport.py   HTTP: connections, redirects, time limits, what an answer means
    proxies.py     which proxy a request goes through
    zones.py       how near to this host a server may lead
    auth.py        tokens and passwords
    mirrors.py     which servers to ask for a registry's images
    client.py      manifests and blobs of one repository
    manifests.py   what they say, checked: index, manifest, platform

Every byte that comes from here was hashed against the digest it was asked by. Nothing here knows the store.
Source: the OCI distribution specification and image specification.
"""
