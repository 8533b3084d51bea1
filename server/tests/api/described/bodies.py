"""Bodies that are not JSON: schemathesis knows how to write neither."""

import json

import schemathesis


@schemathesis.serializer("application/vnd.holdfast.objects")
def objects(context, value):
    """Whatever is generated, as bytes: hardly ever a list of objects."""
    return value if isinstance(value, bytes) else json.dumps(value, default=str).encode()
