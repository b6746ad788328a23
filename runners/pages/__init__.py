"""HTML pages without scripts: a page, its style sheet, SVG charts."""
