//! Whether a URL may be fetched, and what of it is needed to do so.

use std::fmt;
use std::str::FromStr;

use axum::http::uri::PathAndQuery;
use url::{Host, Position, Url};

use super::refusal::Refusal;

/// The name of a host that media may be fetched from, as the URL parser writes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaDomain(String);

impl FromStr for MediaDomain {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match Host::parse(text) {
            Ok(Host::Domain(name)) if !name.contains('*') => Ok(Self(name)),
            _ => Err("expected the name of one host, such as images.example.com: no address, port, path or pattern"
                .to_owned()),
        }
    }
}

impl fmt::Display for MediaDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A URL that may be fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    /// One of the allowed names.
    pub(super) host: String,
    /// What the host is asked for.
    pub(super) path: PathAndQuery,
}

impl Target {
    /// Reads a URL; this is the only place where one is read.
    pub(super) fn of(url: &str, domains: &[MediaDomain]) -> Result<Self, Refusal> {
        let url = Url::parse(url).map_err(|_| Refusal::Malformed)?;
        if url.scheme() != "https" {
            return Err(Refusal::NotHttps);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(Refusal::Credentials);
        }
        if url.port().is_some() {
            return Err(Refusal::Port);
        }
        let host = url.domain().filter(|host| domains.iter().any(|domain| domain.0 == *host));
        let host = host.ok_or(Refusal::Host)?.to_owned();
        let path = PathAndQuery::try_from(&url[Position::BeforePath..Position::AfterQuery]);
        Ok(Self { host, path: path.map_err(|_| Refusal::Malformed)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_urls_of_allowed_hosts_pass() {
        let domains = ["images.example.com", "bücher.example"].map(|name| name.parse().unwrap());
        for (url, host, path) in [
            ("https://images.example.com/a/b.png?c=d&e#f", "images.example.com", "/a/b.png?c=d&e"),
            ("HTTPS://IMAGES.EXAMPLE.COM:443", "images.example.com", "/"),
            ("https://images%2eexample.com//a b", "images.example.com", "//a%20b"),
            ("https://bücher.example/ü", "xn--bcher-kva.example", "/%C3%BC"),
            // Parsers of old disagree on what a backslash is; here it is what a browser takes it for.
            (r"https://images.example.com\@evil.example/a", "images.example.com", "/@evil.example/a"),
        ] {
            let target = Target::of(url, &domains).unwrap();
            assert_eq!((target.host.as_str(), target.path.as_str()), (host, path), "{url}");
        }
        for (url, refusal) in [
            ("http://images.example.com/", Refusal::NotHttps),
            ("ftp://images.example.com/", Refusal::NotHttps),
            ("https://", Refusal::Malformed),
            ("images.example.com/a", Refusal::Malformed),
            ("https://images.example.com:8443/", Refusal::Port),
            ("https://a@images.example.com/", Refusal::Credentials),
            ("https://images.example.com@evil.example/", Refusal::Credentials),
            ("https://evil.example/images.example.com", Refusal::Host),
            (r"https://evil.example\@images.example.com/", Refusal::Host),
            ("https://a.images.example.com/", Refusal::Host),
            ("https://example.com/", Refusal::Host),
            ("https://images.example.com./", Refusal::Host),
            ("https://127.0.0.1/", Refusal::Host),
            ("https://2130706433/", Refusal::Host),
            ("https://0x7f.1/", Refusal::Host),
            ("https://[::ffff:127.0.0.1]/", Refusal::Host),
        ] {
            assert_eq!(Target::of(url, &domains), Err(refusal), "{url}");
        }
    }

    #[test]
    fn domains_are_names_of_hosts() {
        assert_eq!("Images.EXAMPLE.com".parse(), Ok(MediaDomain("images.example.com".into())));
        for text in [
            "",
            "*.example.com",
            "https://a.example",
            "a.example:443",
            "a.example/b",
            "127.0.0.1",
            "1",
            "[::1]",
        ] {
            assert!(text.parse::<MediaDomain>().is_err(), "{text}");
        }
    }
}
