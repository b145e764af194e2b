//! `GET /`: a page to talk to the model, in one file and from this server alone.

use std::sync::LazyLock;

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse, Response};
use base64::Engine as _;
use sha2::{Digest, Sha256};

/// Markup, style and script together.
const PAGE: &str = include_str!("playground/page.html");

/// Only the page's own style and script run, known by their digests; it loads nothing and speaks to this server only. Media
/// that a person attaches stay in the page.
static POLICY: LazyLock<HeaderValue> = LazyLock::new(|| {
    let policy = format!(
        "default-src 'none'; style-src '{}'; script-src '{}'; connect-src 'self'; img-src data:; media-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        digest("style"),
        digest("script")
    );
    HeaderValue::try_from(policy).expect("invariant: a policy is plain text")
});

/// The digest of what is inside of the page's one element of this name, as policies spell it.
fn digest(element: &str) -> String {
    let inside = PAGE
        .split_once(&format!("<{element}>"))
        .and_then(|(_, rest)| rest.split_once(&format!("</{element}>")));
    let digest = Sha256::digest(inside.map_or("", |(inside, _)| inside));
    format!("sha256-{}", base64::engine::general_purpose::STANDARD.encode(digest))
}

/// The playground. Needs no key: it holds nothing, and asks for the key that its requests need.
pub(crate) async fn playground() -> Response {
    let headers = [
        (header::CONTENT_SECURITY_POLICY, POLICY.clone()),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (HeaderName::from_static("cross-origin-opener-policy"), HeaderValue::from_static("same-origin")),
    ];
    (headers, Html(PAGE)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_small_and_needs_nothing_else() {
        assert!(PAGE.len() < 60_000, "{} bytes", PAGE.len());
        for reference in ["src=\"", "@import", "url(", "<link rel=\"stylesheet", " style=\"", " onclick=\""] {
            assert!(!PAGE.contains(reference), "{reference}");
        }
        for element in ["<script>", "</script>", "<style>", "</style>"] {
            assert_eq!(PAGE.matches(element).count(), 1, "{element}");
        }
        let policy = POLICY.to_str().expect("text");
        assert_eq!(policy.matches("'sha256-").count(), 2);
        assert!(!policy.contains("unsafe") && !policy.contains('*'), "{policy}");
    }
}
