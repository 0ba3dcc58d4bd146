"""Figures and pages out of the JSON that the stages wrote; the only importer of matplotlib."""
