"""From folder to folder: a lighter run out of a trained one."""
