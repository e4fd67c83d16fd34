"""Whom downloads trust, where Python itself knows nobody who vouches for servers."""

import os
import ssl
import urllib.request


def trust_known_authorities() -> None:
    """Let downloads take the authorities that certifi lists, if Python knows none.

    So it is on a Mac with the Python of python.org, until its "Install Certificates.command" has been run.
    """
    paths = ssl.get_default_verify_paths()
    listed = paths.cafile or (paths.capath and os.listdir(paths.capath))
    if listed or ssl.create_default_context().get_ca_certs():  # the latter: from Windows itself
        return
    import certifi  # comes with requests, which the network alone does not need

    context = ssl.create_default_context(cafile=certifi.where())
    urllib.request.install_opener(urllib.request.build_opener(urllib.request.HTTPSHandler(context=context)))
