"""report.html, one self-contained page: `page` puts it together, `charts`, `items` and `origin` say what is in its parts."""
