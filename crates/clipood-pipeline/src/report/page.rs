//! The HTML page around a report: one file without scripts and external resources.

use super::text_table::escape;

/// A page called `title` with the HTML `body`.
pub fn page(title: &str, body: &str) -> String {
    let title = escape(title);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>clipood: {title}</title>\n<style>\n\
         body {{ font: 15px/1.4 system-ui, sans-serif; margin: 2em auto; max-width: 84em; padding: 0 1em; }}\n\
         table {{ border-collapse: collapse; }} th, td {{ padding: .25em .8em; border-bottom: 1px solid #ddd; text-align: left; }}\n\
         .figure {{ text-align: right; font-variant-numeric: tabular-nums; }}\n</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )
}
