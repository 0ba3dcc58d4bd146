"""The pages in HTML: one file each, that needs nothing beside it and asks nobody for anything."""
