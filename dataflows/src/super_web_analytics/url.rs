//! What a URL is taken for: many spellings of one page count as one.

use thiserror::Error;

/// Why text is not the URL of a page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UrlError {
    /// Nothing, or not only letters, digits, `+`, `-` and `.` before a `://`; or there is none.
    #[error("the URL does not begin with a scheme like `https://`")]
    Scheme,
    /// Nothing between `://` and the path.
    #[error("the URL has no host")]
    Host,
}

/// A URL without what does not tell pages apart: white space around it, query, fragment, user name and password, the scheme's
/// default port, letter case of scheme and host. An empty path is `/`; other paths stay as they are, letter case and final `/`
/// included.
///
/// ```
/// use lambdaflow_dataflows::super_web_analytics::url::{UrlError, normalized};
/// assert_eq!(normalized(" HTTPS://me@Example.COM:443/News/?page=2#top").as_deref(), Ok("https://example.com/News/"));
/// assert_eq!(normalized("http://example.com:8080?q").as_deref(), Ok("http://example.com:8080/"));
/// assert_eq!(normalized("example.com/news"), Err(UrlError::Scheme));
/// assert_eq!(normalized("http:///news"), Err(UrlError::Host));
/// ```
pub fn normalized(url: &str) -> Result<String, UrlError> {
    let (scheme, rest) = url.trim().split_once("://").ok_or(UrlError::Scheme)?;
    if scheme.is_empty() || !scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b)) {
        return Err(UrlError::Scheme);
    }
    let rest = &rest[..rest.find(['?', '#']).unwrap_or(rest.len())];
    let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let authority = authority.rsplit_once('@').map_or(authority, |(_user, host)| host);

    let mut page = String::with_capacity(scheme.len() + authority.len() + path.len() + 4);
    page.push_str(scheme);
    page.make_ascii_lowercase();
    let default_port = match &*page {
        "http" => ":80",
        "https" => ":443",
        _ => ":",
    };
    let host = authority.strip_suffix(default_port).or_else(|| authority.strip_suffix(':')).unwrap_or(authority);
    if host.is_empty() || host.starts_with(':') {
        return Err(UrlError::Host);
    }
    page.push_str("://");
    let host_at = page.len();
    page.push_str(host);
    page[host_at..].make_ascii_lowercase();
    page.push_str(if path.is_empty() { "/" } else { path });
    Ok(page)
}

/// The domain of a normalized URL: its host, without the port.
///
/// ```
/// use lambdaflow_dataflows::super_web_analytics::url::domain;
/// assert_eq!(domain("http://example.com:8080/news"), "example.com");
/// assert_eq!(domain("http://[::1]/"), "[::1]");
/// ```
pub fn domain(page: &str) -> &str {
    let authority = page.split("://").nth(1).and_then(|rest| rest.split('/').next()).unwrap_or("");
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) && !port.is_empty() => host,
        _ => authority,
    }
}
