//! What is turned away before it reaches a route: over-long URLs and heads, and web pages that try a server without keys.

use std::net::IpAddr;

use axum::extract::{Request, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, HeaderName, Uri, header};
use axum::middleware::Next;
use axum::response::Response;

use crate::{ApiError, App};

/// The longest URL, in bytes. The API's own are far shorter.
const MAX_URL: usize = 8 * 1024;

/// The largest head of a request, in bytes of names and values.
const MAX_HEAD: usize = 64 * 1024;

/// Which names a request may have been sent to.
///
/// A server on the loopback interface without keys is open to every program of its machine, and a browser is one: a web
/// page can point a name of its own at 127.0.0.1 (DNS rebinding) and then ask as if it were at home. The `Host` and
/// `Origin` headers, which pages cannot choose, give it away.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum AllowedHosts {
    /// All names: there are keys, or the operator wants it so.
    #[default]
    Any,
    /// `localhost`, names below it, loopback addresses, and these.
    Loopback {
        /// Further names, without a port.
        and: Vec<String>,
    },
}

impl AllowedHosts {
    fn allows(&self, host: &str) -> bool {
        let Self::Loopback { and } = self else { return true };
        let host =
            host.trim_start_matches('[').trim_end_matches(']').trim_end_matches('.').to_ascii_lowercase();
        host == "localhost"
            || host.ends_with(".localhost")
            || host.parse().is_ok_and(|address: IpAddr| address.to_canonical().is_loopback())
            || and.iter().any(|name| name.eq_ignore_ascii_case(&host))
    }

    fn check_host(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), ApiError> {
        let header = text(headers, &header::HOST);
        let named = uri.authority().map(Authority::as_str).into_iter().chain(header);
        for authority in named {
            let host = authority.parse::<Authority>();
            if !host.is_ok_and(|authority| self.allows(authority.host())) {
                return Err(foreign(&format!("the request is for the host {authority:?}")));
            }
        }
        Ok(())
    }

    /// Programs send no origin; extensions and desktop applications have schemes of their own.
    fn check_origin(&self, headers: &HeaderMap) -> Result<(), ApiError> {
        let Some(origin) = text(headers, &header::ORIGIN) else { return Ok(()) };
        let from_a_page = origin == "null" || origin.starts_with("http://") || origin.starts_with("https://");
        let host = origin.parse::<Uri>().ok().and_then(|uri| uri.host().map(str::to_owned));
        if !from_a_page || host.is_some_and(|host| self.allows(&host)) {
            return Ok(());
        }
        Err(foreign(&format!("the request comes from a web page of {origin:?}")))
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).map(|value| value.to_str().unwrap_or("?"))
}

fn foreign(what: &str) -> ApiError {
    ApiError::forbidden(format!(
        "{what}; without API keys this server answers to this machine only. Set keys with --api-key-file, or allow the \
         name with --allow-host"
    ))
}

/// Lets through what may ask at all.
pub(crate) async fn check(
    State(app): State<App>,
    request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let (uri, config) = (request.uri(), app.config());
    let url_bytes = uri.path_and_query().map_or(0, |url| url.as_str().len());
    if url_bytes > MAX_URL {
        return Err(ApiError::url_too_long(MAX_URL));
    }
    let head_bytes: usize =
        request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if head_bytes > MAX_HEAD {
        return Err(ApiError::head_too_large(MAX_HEAD));
    }
    if config.allowed_hosts != AllowedHosts::Any {
        config.allowed_hosts.check_host(uri, request.headers())?;
        if !config.cors {
            config.allowed_hosts.check_origin(request.headers())?;
        }
    }
    Ok(next.run(request).await)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_and_named_hosts_are_at_home() {
        let hosts = AllowedHosts::Loopback { and: vec!["Kimi.lan".into()] };
        for home in [
            "localhost",
            "LocalHost.",
            "a.localhost",
            "127.0.0.1",
            "127.9.9.9",
            "[::1]",
            "kimi.lan",
            "::ffff:127.0.0.1",
        ] {
            assert!(hosts.allows(home), "{home}");
        }
        for foreign in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "10.0.0.1",
            "",
            "notlocalhost",
        ] {
            assert!(!hosts.allows(foreign), "{foreign}");
            assert!(AllowedHosts::Any.allows(foreign));
        }
    }
}
