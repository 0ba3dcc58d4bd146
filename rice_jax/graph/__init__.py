"""A net as one flat list of equations with layer paths: what the tools for any net are built on."""
