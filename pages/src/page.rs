use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::escaped;

/// A page that needs nothing but itself.
#[derive(Debug, Clone, Copy)]
pub struct Page<'a> {
    /// What the browser calls it, as text.
    pub title: &'a str,
    /// CSS beyond what all pages have.
    pub style: &'a str,
    /// What it shows, as HTML.
    pub body: &'a str,
}

impl Page<'_> {
    /// Writes the page. The browser is told to load nothing and to run nothing, whatever the body says.
    pub fn to_html(&self) -> String {
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta http-equiv=\"Content-Security-Policy\" \
             content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:\">\n\
             <title>{title} · FastCLIP</title>\n<style>\n{common}{style}</style>\n</head>\n<body>\n<main>\n{body}\
             </main>\n</body>\n</html>\n",
            title = escaped(self.title),
            common = include_str!("style.css"),
            style = self.style,
            body = self.body,
        )
    }
}

/// An image as an address that needs no host.
pub fn data_url(media_type: &str, bytes: &[u8]) -> String {
    format!("data:{media_type};base64,{}", STANDARD.encode(bytes))
}
